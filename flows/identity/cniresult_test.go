// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// shape is a file with these interfaces, as the plugin of that name lists them.
func shape(interfaces string) string {
	return `{"kind": "cniCacheV1", "containerId": "c", "config": "e30=", "ifName": "eth0", "networkName": "n", "cniArgs": [
["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "ns"], ["K8S_POD_NAME", "a"], ["K8S_POD_INFRA_CONTAINER_ID", "c"], ["K8S_POD_UID", "u"]],
"result": {"cniVersion": "1.0.0", "interfaces": [` + interfaces + `],
"ips": [{"address": "10.0.0.1/32"}, {"address": "2001:db8::1/128"}, {"address": "x"}], "dns": {}}}`
}

func TestParseCNIResult(t *testing.T) {
	for _, test := range []struct {
		name, interfaces string
		want             map[string]string
	}{
		{"ptp", `{"name": "veth1", "mac": "02:00:00:00:00:01"}, {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/n"}`,
			map[string]string{"veth1": mac1}},
		{"bridge", `{"name": "cni0", "mac": "02:00:00:00:00:02"}, {"name": "veth1", "mac": "02:00:00:00:00:01"}, {"name": "eth0", "sandbox": "/n"}`,
			map[string]string{"cni0": mac2, "veth1": mac1}},
		{"Calico", `{"name": "cali0123456789a", "mac": "02:00:00:00:00:02", "sandbox": "/n", "mtu": 1450}`,
			map[string]string{"cali0123456789a": ""}},
		{"AWS VPC CNI", `{"name": "eni0123456789a"}, {"name": "eth0", "sandbox": "/n", "pciID": "0"}, {"name": "dummy0123456789", "mac": "7"}`,
			map[string]string{"eni0123456789a": ""}},
		{"kindnet", `{"name": "eth0"}`, map[string]string{}},
		{"names of the sandbox", `{"name": "eth0", "sandbox": "/n"}, {"name": "net1", "sandbox": "/n"}`, map[string]string{}},
		{"none", ``, map[string]string{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseCNIResult([]byte(shape(test.interfaces)))
			if err != nil {
				t.Fatal(err)
			}
			want := &cniResult{uid: "u", namespace: "ns", name: "a", devices: test.want, addresses: addresses("10.0.0.1", "2001:db8::1")}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(cniResult{}), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	many := shape(strings.TrimSuffix(strings.Repeat(`{"name": "v"},`, maxDevices+1), ","))
	if _, err := parseCNIResult([]byte(many)); err == nil || !strings.Contains(err.Error(), "65 interfaces") {
		t.Errorf("got error %v, want one about too many interfaces", err)
	}
}

// What real plugins return, and a real libcni keeps.
func TestParseRecordedCNIResults(t *testing.T) {
	for name, want := range map[string]map[string]string{
		"ptp":    {"vethbd1ae444": "66:96:58:1e:eb:17"},
		"bridge": {"cni0": "26:28:7c:b2:7e:43", "vethe9f24e85": "b6:dd:4d:0b:c8:61"},
		"bridge-bandwidth": {
			"cni0": "b2:ca:e9:be:12:07", "veth91640b84": "aa:cf:a9:84:01:6b", "bwp9dc2b6b283c4": "ba:d4:8b:6c:64:e1",
		},
	} {
		data, err := os.ReadFile(filepath.Join("testdata/cni", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseCNIResult(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(want, got.devices); diff != "" || got.uid != "uid-a" || got.namespace != "ns" || got.name != "a" {
			t.Errorf("%s: got pod %s, %s/%s, devices (-want +got):\n%s", name, got.uid, got.namespace, got.name, diff)
		}
	}
}

// FuzzParseCNIResult reads arbitrary bytes as a file of libcni's cache: what is taken
// names a pod, and no device with an address that is none.
func FuzzParseCNIResult(f *testing.F) {
	recorded, err := filepath.Glob("testdata/cni/*.json")
	if err != nil || len(recorded) == 0 {
		f.Fatalf("no recorded results: %v", err)
	}
	for _, name := range recorded {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, seed := range []string{
		"", "{}", "null", "[]", "\xff", shape(``), shape(`null`), shape(`{"name": 1}`), shape(`{"mac": "aa", "name": "x"}`),
		shape(`{"name": "cali1", "sandbox": "s"}, {"name": "eth0", "sandbox": "s"}`),
		`{"kind": "cniCacheV1", "cniArgs": [["K8S_POD_UID"], [], ["K8S_POD_NAME", "a", "b"], null]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseCNIResult(data)
		if err != nil {
			return
		}
		if r.uid == "" || r.namespace == "" || r.name == "" || len(r.devices) > maxDevices {
			t.Errorf("got %+v, want a pod, and no more than %d devices", r, maxDevices)
		}
		for device, mac := range r.devices {
			if _, err := net.ParseMAC(mac); mac != "" && err != nil {
				t.Errorf("%q has the address %q: %v", device, mac, err)
			}
		}
	})
}
