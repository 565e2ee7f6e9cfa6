// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
)

const (
	mac1, mac2 = "02:00:00:00:00:01", "02:00:00:00:00:02"
	// device is the name of the interface that tests ask about.
	device = "veth1"
)

// results is a directory as libcni keeps it.
type results struct {
	t         *testing.T
	directory string
}

func newResults(t *testing.T) *results {
	t.Helper()
	r := &results{t, t.TempDir()}
	if err := os.Mkdir(filepath.Join(r.directory, "results"), 0o700); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *results) path(name string) string { return filepath.Join(r.directory, "results", name) }

// write writes a file, as of a number of seconds after the start.
func (r *results) write(name string, data []byte, seconds float64) {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), data, 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chtimes(r.path(name), time.Time{}, at(seconds)); err != nil {
		r.t.Fatal(err)
	}
}

// made writes the result of a pod's interface.
func (r *results) made(p *Pod, seconds float64, interfaces ...cniInterface) {
	r.t.Helper()
	r.write("net-"+p.UID+"-eth0", resultOf(r.t, p, interfaces...), seconds)
}

// resultOf is a file about a pod. Its addresses are the pod's.
func resultOf(t *testing.T, p *Pod, interfaces ...cniInterface) []byte {
	t.Helper()
	file := cniFile{Kind: cniKind, IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.Namespace}, {"K8S_POD_NAME", p.Name}, {"K8S_POD_UID", p.UID},
	}}
	file.Result.Interfaces = append(interfaces, cniInterface{Name: "eth0", Sandbox: "/var/run/netns/" + p.Name})
	for _, address := range p.Addresses {
		file.Result.IPs = append(file.Result.IPs, struct {
			Address string `json:"address"`
		}{netip.PrefixFrom(address, 24).String()})
	}
	data, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// host is an interface of the host, as a result has it.
func host(name, mac string) cniInterface { return cniInterface{Name: name, MAC: mac} }

// veth is the interface that was attached some seconds after the start.
func veth(attached float64) flows.Interface {
	return flows.Interface{Name: device, Attached: at(attached), PeerNamespace: 0, HardwareAddr: mac1}
}

func with(i flows.Interface, change func(*flows.Interface)) flows.Interface {
	change(&i)
	return i
}

// never is a fallback that knows nothing.
type never struct{}

func (never) Bind(flows.Interface, []netip.Addr, *flows.Bound) *flows.Pod { return nil }

// binder binds by the results, and asks each time.
func (r *results) binder(c *Cache) cniBinder {
	seconds := 0
	clock := func() time.Time { seconds++; return start.Add(time.Duration(seconds) * time.Second) }
	return cniBinder{newCNICache(r.directory, clock, slog.New(slog.DiscardHandler)), c, never{}}
}

func TestBindsByCNIResult(t *testing.T) {
	p, other := pod("a", 0, "10.0.0.1"), pod("b", 0, "10.0.0.2")
	onHost, far, young, renamed := *p, *p, *p, *p
	onHost.HostNetwork, far.Node, young.Started, renamed.Name = true, "there", at(50), "c"
	static := *p
	static.UID, static.StaticUID, static.Started = "uid-mirror", p.UID, at(50)
	claimed := static
	claimed.UID, claimed.Name = "uid-claims", "claims"
	routed := func(texts ...string) flows.Interface {
		return with(veth(5), func(i *flows.Interface) { i.Addresses = addresses(texts...) })
	}
	mine := func(r *results) { r.made(p, 6, host(device, mac1)) }
	for _, test := range []struct {
		name  string
		files func(*results)
		pods  []*Pod
		ask   flows.Interface
		want  string
	}{
		{"its pod", mine, []*Pod{p, other}, veth(5), "uid-a"},
		{"at once, before anybody knows its address", mine, []*Pod{pod("a", 0)}, veth(5), "uid-a"},
		{"while the pod is being deleted", mine, []*Pod{changed(p, func(p *Pod) { p.Leaving = true })}, veth(5), "uid-a"},
		{"no file", func(*results) {}, []*Pod{p}, veth(5), ""},
		{"of another interface", func(r *results) { r.made(p, 6, host("veth2", mac1)) }, []*Pod{p}, veth(5), ""},
		{"pod not known", mine, []*Pod{other}, veth(5), ""},
		{"pod of another node", mine, []*Pod{&far}, veth(5), ""},
		{"pod with hostNetwork", mine, []*Pod{&onHost}, veth(5), ""},
		{"pod of another name", mine, []*Pod{&renamed}, veth(5), ""},
		{"interface older than the pod, whose clock was set back: the result names it", mine, []*Pod{&young}, veth(5), "uid-a"},
		{"no other end in another namespace: a bridge, an ifb", mine, []*Pod{p},
			with(veth(5), func(i *flows.Interface) { i.PeerNamespace = -1 }), ""},
		{"another hardware address", func(r *results) { r.made(p, 6, host(device, mac2)) }, []*Pod{p}, veth(5), ""},
		{"written differently", func(r *results) { r.made(p, 6, host(device, "02-00-00-00-00-01")) }, []*Pod{p}, veth(5), "uid-a"},
		{"hardware address not told", func(r *results) { r.made(p, 6, host(device, "")) }, []*Pod{p}, veth(5), "uid-a"},
		{"the pod's route", mine, []*Pod{p}, routed("10.0.0.1"), "uid-a"},
		{"one of its routes", mine, []*Pod{p}, routed("10.0.0.9", "10.0.0.1"), "uid-a"},
		{"another pod's route", mine, []*Pod{p}, routed("10.0.0.2"), ""},
		{"a route of the other family, of which the result has none", mine, []*Pod{p}, routed("2001:db8::1"), "uid-a"},
		{"the same, and another pod's", mine, []*Pod{p}, routed("2001:db8::1", "10.0.0.2"), ""},
		{"a link-local route says nothing", mine, []*Pod{p}, routed("fe80::1"), "uid-a"},
		{"file older than the interface", func(r *results) { r.made(p, 6, host(device, mac1)) }, []*Pod{p},
			with(veth(30), func(i *flows.Interface) { i.Appeared = at(30) }), ""},
		{"file older than the attachment alone", mine, []*Pod{p},
			with(veth(90), func(i *flows.Interface) { i.Appeared = at(5) }), "uid-a"},
		{"file younger than the end of the interface", func(r *results) { r.made(p, 60, host(device, mac1)) }, []*Pod{p},
			with(veth(5), func(i *flows.Interface) { i.Gone = at(50) }), ""},
		{"interface that is gone", mine, []*Pod{p}, with(veth(5), func(i *flows.Interface) { i.Gone = at(50) }), "uid-a"},
		{"two pods", func(r *results) {
			r.made(other, 5, host(device, mac1))
			r.made(p, 6, host(device, mac1))
		}, []*Pod{p, other}, veth(5), ""},
		{"the older file's pod is gone", func(r *results) {
			r.made(other, 5, host(device, mac1))
			r.made(p, 6, host(device, mac1))
		}, []*Pod{p}, veth(5), "uid-a"},
		{"the younger file's pod is not known yet", func(r *results) {
			r.made(other, 7, host(device, mac1))
			r.made(p, 6, host(device, mac1))
		}, []*Pod{p}, veth(5), ""},
		{"two files of one time, one of a pod not known", func(r *results) {
			r.made(other, 6, host(device, mac1))
			r.made(p, 6, host(device, mac1))
		}, []*Pod{p}, veth(5), ""},
		{"the other file is about another device", func(r *results) {
			r.made(other, 7, host(device, mac2))
			r.made(p, 6, host(device, mac1))
		}, []*Pod{p, other}, veth(5), "uid-a"},
		{"two containers of one pod", func(r *results) {
			mine(r)
			r.write("net-second-eth0", resultOf(t, p, host(device, mac1)), 7)
		}, []*Pod{p}, veth(5), "uid-a"},
		{"static pod", mine, []*Pod{&static}, veth(5), "uid-mirror"},
		{"somebody claims to be its mirror", mine, []*Pod{&claimed}, veth(5), ""},
		{"its mirror, and one that claims to be it", mine, []*Pod{&static, &claimed}, veth(5), "uid-mirror"},
		{"a pod before one that claims to be its mirror", mine, []*Pod{p, &claimed}, veth(5), "uid-a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, c := newResults(t), newTestCache(&clock{at(100)})
			test.files(r)
			for _, p := range test.pods {
				c.SetPod(p)
			}
			got := ""
			if p := r.binder(c).Bind(test.ask, nil, nil); p != nil {
				got = p.UID
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func changed(p *Pod, change func(*Pod)) *Pod {
	other := *p
	change(&other)
	return &other
}

// An interface waits for its pod, and for its file; meanwhile others may know it.
func TestCNIResultComesLater(t *testing.T) {
	r, c, p := newResults(t), newTestCache(&clock{at(100)}), pod("a", 0)
	b := r.binder(c)
	bind := func() string {
		if pod := b.Bind(veth(5), nil, nil); pod != nil {
			return pod.UID
		}
		return ""
	}
	expect := func(when, want string) {
		t.Helper()
		if got := bind(); got != want {
			t.Errorf("%s: got %q, want %q", when, got, want)
		}
	}
	expect("nothing", "")
	data := resultOf(t, p, host(device, mac1))
	r.write("f", data[:len(data)/2], 6)
	expect("half a file", "")
	c.SetPod(p)
	expect("half a file, and the pod", "")
	r.write("f", data, 6)
	expect("the file", "uid-a")
	c.DeletePod(p)
	expect("pod deleted", "uid-a")
	c.SetPod(p)
	if err := os.Remove(r.path("f")); err != nil {
		t.Fatal(err)
	}
	expect("file removed", "")
	b.fallback = flows.NameBinder{}
	expect("fallback", "interface:"+device)
}

// Several networks of one pod, as Multus makes them with a cache of its own, are all
// that pod's.
func TestSeveralNetworksOfAPod(t *testing.T) {
	r, c, p := newResults(t), newTestCache(&clock{at(100)}), pod("a", 0, "10.0.0.1")
	c.SetPod(p)
	r.made(p, 6, host(device, mac1))
	second := pod("a", 0, "10.9.0.1")
	if err := os.MkdirAll(filepath.Join(r.directory, "multus", "results"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.write("../multus/results/second-uid-a-net1", resultOf(t, second, host("veth2", mac2)), 6)
	b := r.binder(c)
	other := flows.Interface{Name: "veth2", HardwareAddr: mac2, Attached: at(5), Addresses: addresses("10.9.0.1")}
	for _, i := range []flows.Interface{veth(5), other} {
		if got := b.Bind(i, nil, nil); got == nil || got.UID != "uid-a" {
			t.Errorf("%s: got %v, want uid-a", i.Name, got)
		}
	}
}
