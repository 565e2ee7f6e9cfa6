// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/effort"
)

// lines returns the lines of an error's text, without the file's name.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(strings.ReplaceAll(err.Error(), "f.yaml:", ""), "\n")
}

// staticFaults are files and the faults of them, line by line.
var staticFaults = []struct {
	name, text string
	want       []string
}{
	{"fine", "pods: [{name: a, ips: [10.0.0.1]}]", nil},
	{"empty lists", "pods:\nservices: []\nnodes: ~", nil},
	{"empty", "", []string{"1: the file is empty"}},
	{"only a comment", "# nothing\n", []string{"1: the file is empty"}},
	{"not a mapping", "- a", []string{"1: file: got a list, want a mapping"}},
	{"syntax", "pods:\n  - name: a\n ips: []", []string{"2: did not find expected key"}},
	{"control character", "pods:\n# \x01", []string{"2: control characters are not allowed"}},
	{"two documents", "pods: []\n---\nnodes: []", []string{"2: a second document: only one is allowed"}},
	{"unknown keys", "pod: []\nfoo: 1\nservices:\n- name: s\n  ips: [10.96.0.1]\n  port: []", []string{
		`1: file: unknown key "pod"; did you mean "pods"?`,
		`2: file: unknown key "foo"`,
		`6: service s: unknown key "port"; did you mean "ports"?`,
	}},
	{"key twice", "pods: []\npods: []", []string{`2: file: key "pods" given twice, first on line 1`}},
	{"wrong types", "node: n\npods:\n- name: 7\n  namespace: [x]\n  ips: 10.0.0.1\n- 5\nservices: {}\nnodes:\n- name: true", []string{
		`1: node: got "n", want a mapping`,
		"3: pod 7: name: got the number 7, want a string",
		"3: pod 7: needs a name",
		"4: pod 7: namespace: got a list, want a string",
		`5: pod 7: ips: got "10.0.0.1", want a list`,
		"6: pod: got the number 5, want a mapping",
		"7: services: got a mapping, want a list",
		"9: node true: name: got the boolean true, want a string",
		"9: node true: needs a name",
	}},
	{"missing", "node: {}\npods:\n- namespace: x\n  ips: [10.0.0.1]\n- name: a\nservices:\n- name: s\n- ips: [10.96.0.1]\nnodes:\n- zone: z", []string{
		"1: node: needs a name",
		"3: pod: needs a name",
		"5: pod a: needs ips or an interface",
		"7: service s: needs ips or externalIPs",
		"8: service: needs a name",
		"10: node: needs a name",
	}},
	{"addresses", "pods:\n- name: a\n  ips:\n  - 10.0.0.300\n  - fe80::1%eth0\n  - ::ffff:10.0.0.1\n  - 224.0.0.1\n  - 127.0.0.1\n  - ''\n  - 10.0.0.1", []string{
		`4: pod a: ips: "10.0.0.300" is not an IP address`,
		"5: pod a: ips: fe80::1%eth0: write the address without zone, IPv4 as such",
		"6: pod a: ips: ::ffff:10.0.0.1: write the address without zone, IPv4 as such",
		"7: pod a: ips: 224.0.0.1 cannot be the address of one machine",
		"8: pod a: ips: 127.0.0.1 cannot be the address of one machine",
		"9: pod a: ips: is empty",
	}},
	{"ranges", "podCIDRs:\n- 10.0.0.0\n- 10.0.0.1/24\n- 10.1.0.0/16\nserviceCIDRs:\n- 10.1.0.0/16\n- 10.1.5.0/24\n- ::ffff:10.0.0.0/104", []string{
		`2: podCIDRs: "10.0.0.0" is not a CIDR range`,
		"3: podCIDRs: 10.0.0.1/24 has host bits set; did you mean 10.0.0.0/24?",
		"6: serviceCIDRs: 10.1.0.0/16 given twice, first on line 4",
		"7: serviceCIDRs: 10.1.5.0/24 overlaps podCIDRs 10.1.0.0/16 of line 4",
		"8: serviceCIDRs: ::ffff:10.0.0.0/104: write an IPv4 range as such",
	}},
	{"duplicates", `pods:
- {namespace: x, name: a, ips: [10.0.0.1]}
- {namespace: x, name: a, ips: [10.0.0.2]}
- {namespace: y, name: a, ips: [10.0.0.1], interface: veth0}
- {namespace: y, name: b, interface: veth0}
services:
- {name: s, ips: [10.0.0.2], externalIPs: [203.0.113.1], ports: [{port: 80}, {port: 80}]}
- {name: t, externalIPs: [203.0.113.1], ports: [{port: 80}, {port: 80, protocol: udp}]}
- {name: s, ips: [10.96.0.1]}
- {name: u, externalIPs: [203.0.113.1], ports: [{port: 80}]}
nodes:
- {name: n, addresses: [10.96.0.1]}
- {name: n}`, []string{
		"3: pod x/a given twice, first on line 2",
		"4: pod y/a: ips: 10.0.0.1 belongs to line 2 already",
		`5: pod y/b: interface "veth0" belongs to line 4 already`,
		"7: service s: ips: 10.0.0.2 belongs to line 3 already",
		"7: service s: port 80 given twice, first on line 7",
		"9: service /s given twice, first on line 7",
		"10: service u: externalIPs: 203.0.113.1 belongs to line 8 already",
		"12: node n: addresses: 10.96.0.1 belongs to line 9 already",
		"13: node n given twice, first on line 12",
	}},
	{"ports", "services:\n- name: s\n  ips: [10.96.0.1]\n  ports:\n  - {port: 70000}\n  - {port: http}\n  - {protocol: icmp, port: 7}\n  - {protocol: udp}\n- name: t\n  externalIPs: [203.0.113.1]", []string{
		"5: service s: port: got the number 70000, want a port from 1 to 65535",
		`6: service s: port: got "http", want a port from 1 to 65535`,
		`7: service s: port: protocol: "icmp" is not tcp, udp or sctp`,
		"8: service s: port: needs a port",
		"9: service t: externalIPs need ports",
	}},
	{"workloads", "pods:\n- name: a\n  ips: [10.0.0.1]\n  workload:\n    kind: job\n- name: b\n  ips: [10.0.0.2]\n  workload: {type: DaemonSet, name: d}", []string{
		`5: pod a: workload: unknown key "kind"`,
		"5: pod a: workload: needs a type and a name",
		`8: pod b: workload: type "DaemonSet" must be lower case`,
	}},
	{"nodes", "node: {name: edge-1, zone: z1}\nnodes:\n- {name: edge-1, zone: z2}\n- {name: edge-2}\npods:\n- {name: a, ips: [10.0.0.1], node: edge-3}\n- {name: b, interface: veth1, node: edge-2}", []string{
		`1: node: zone "z1" contradicts zone "z2" on line 3`,
		`6: pod /a: node "edge-3" is not among the nodes; did you mean "edge-1"?`,
		`7: pod /b: interface "veth1", but the pod is on node "edge-2" and not on this one`,
	}},
	{"alias", "x: &x [10.0.0.1]\npods:\n- {name: a, ips: *x}\n- {name: b, ips: *x}", []string{
		`1: file: unknown key "x"`,
		"1: pod b: ips: 10.0.0.1 belongs to line 1 already",
	}},
}

func TestFaultsOfStaticFile(t *testing.T) {
	for _, test := range staticFaults {
		t.Run(test.name, func(t *testing.T) {
			_, err := readContent("f.yaml", []byte(test.text), "")
			if diff := cmp.Diff(test.want, lines(err)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStaticFileContradictsNodeName(t *testing.T) {
	_, err := readContent("f.yaml", []byte("pods: []\nnode:\n  name: a"), "b")
	want := []string{`3: node: name "a" contradicts this node's name "b"`}
	if diff := cmp.Diff(want, lines(err)); diff != "" {
		t.Error(diff)
	}
}

func TestFaultsOfCIDRFile(t *testing.T) {
	_, err := readCIDRs("f.yaml", []byte("a: [10.0.0.0/8, 10.0.0.0/8]\nb: 10.0.0.0/8\nc: []\nd: [10.0.0.0/8, x, 10.0.0.1/8]\n7: [fd00::/8]\na: [fd00::/16]"))
	want := []string{
		"1: a: 10.0.0.0/8 given twice, first on line 1",
		`2: b: got "10.0.0.0/8", want a list`,
		"3: c: has no ranges",
		"4: d: 10.0.0.0/8 given twice, first on line 1",
		`4: d: "x" is not a CIDR range`,
		"4: d: 10.0.0.1/8 has host bits set; did you mean 10.0.0.0/8?",
		"5: name: got the number 7, want a string",
		`6: file: key "a" given twice, first on line 1`,
	}
	if diff := cmp.Diff(want, lines(err)); diff != "" {
		t.Error(diff)
	}
}

// A file is read in bounded time and memory, whatever its aliases make of it, and of a file
// of faults the first ones are told, each cut short.
func TestFilesAreBounded(t *testing.T) {
	effort.Long(t, "reads files of 100,000 items")
	var many, aliases, addresses, ports strings.Builder
	for n := range 40_000 {
		fmt.Fprintf(&many, "10.%d.%d.0/24,", n>>8, n&255)
		fmt.Fprintf(&aliases, "n%d: *a\n", n)
		fmt.Fprintf(&addresses, "203.%d.%d.1,", n>>8, n&255)
		fmt.Fprintf(&ports, "{port: %d},", n+1)
	}
	service := fmt.Sprintf("services:\n- {name: a, externalIPs: [%s], ports: [%s]}", &addresses, &ports)
	for _, test := range []struct {
		name, text string
		read       func(text string) error
		want       string
	}{
		{"aliases", "a: &a [" + many.String() + "]\n" + aliases.String(), cidrError, "given twice"},
		{"aliases of pods", "pods:\n- {name: a, ips: &a [" + strings.ReplaceAll(many.String(), "/24", "") + "]}\n" +
			strings.ReplaceAll(aliases.String(), "n", "- {interface: n, ips: *a}\n#"), contentError, "belongs to"},
		{"addresses by ports", service, contentError, "at most 256 and 1024 are known"},
		{"faults", strings.Repeat("- x\n", 100_000), contentError, "want a mapping"},
		{"many faults", "a: [" + strings.Repeat("x,", 100_000) + "]", cidrError, "no more faults"},
		{"a long fault", "a: [" + strings.Repeat("x", 1_000_000) + "]", cidrError, "xxx~"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.read(test.text)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %.200v, want %q", err, test.want)
			}
			if got := len(err.Error()); got > (faultLimit+1)*(faultLength+100) {
				t.Errorf("got an error of %d bytes, want a short one", got)
			}
		})
	}
}

func cidrError(text string) error {
	_, err := readCIDRs("f.yaml", []byte(text))
	return err
}

func contentError(text string) error {
	_, err := readContent("f.yaml", []byte(text), "")
	return err
}

func FuzzReadContent(f *testing.F) {
	example, err := os.ReadFile("testdata/static.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	for _, seed := range []string{"", "a: &a [*a]", "pods: &p [{name: a, ips: *p}]", "pods:\n- ? [a]\n  : b", "\xff", "%YAML 9", "<<: {pods: []}"} {
		f.Add([]byte(seed))
	}
	withLine := regexp.MustCompile(`^f\.yaml:[1-9][0-9]*: .`)
	f.Fuzz(func(t *testing.T, data []byte) {
		content, err := readContent("f.yaml", data, "")
		if err == nil {
			NewCache(CacheOptions{}).replace(content, content)
			return
		}
		for _, fault := range err.(interface{ Unwrap() []error }).Unwrap() {
			if !withLine.MatchString(fault.Error()) {
				t.Errorf("got a fault without line: %q", fault)
			}
		}
	})
}
