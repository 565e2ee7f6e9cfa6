// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podmeter/podmeter/flows"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

// clock is a clock that a test sets.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func newTestCache(clock *clock) *Cache {
	return NewCache(CacheOptions{
		Node: "here", Now: clock.now,
		ClusterRanges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	})
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// pod returns a pod of this node that started a number of seconds after start.
func pod(name string, started float64, ips ...string) *Pod {
	return &Pod{
		Pod:       flows.Pod{UID: "uid-" + name, Namespace: "ns", Name: name, Node: "here"},
		Addresses: addresses(ips...), Started: at(started),
	}
}

func ended(p *Pod, seconds float64) *Pod {
	done := *p
	done.Finished, done.Ended = true, at(seconds)
	return &done
}

func query(address string, first, last float64) flows.Query {
	return flows.Query{Address: netip.MustParseAddr(address), Protocol: flows.ProtocolTCP, Port: 80,
		First: at(first), Last: at(last)}
}

// says tells an owner in one word: the kind, or the pod's or peer's name.
func says(o *flows.Owner) string {
	switch {
	case o.Pod != "":
		return o.Pod
	case o.Name != "":
		return o.Kind.String() + ":" + o.Name
	}
	return o.Kind.String()
}

// x is the address that changes hands, a and b the pods that have it.
const x = "10.0.0.1"

var a, b = pod("a", 0, x), pod("b", 100, x)

// ask is a time, and the owner of x that is expected.
type ask struct {
	first, last float64
	want        string
}

// times are what may happen to an address.
var times = []struct {
	name string
	do   func(*Cache, *clock)
	asks []ask
}{
	{"one pod", func(c *Cache, _ *clock) { c.SetPod(a) }, []ask{
		{10, 20, "a"}, {0, 0, "a"}, {-3, 10, "a"}, {-3, -2, "a"},
		{-3600, 10, "unattributed"}, // somebody else had it before
		{-3600, -3000, "cluster"},
	}},
	{"handed on", func(c *Cache, k *clock) {
		c.SetPod(a)
		k.Time = at(90)
		c.DeletePod(a)
		k.Time = at(101)
		c.SetPod(b)
	}, []ask{
		{10, 89, "a"}, {89, 93, "a"}, {92, 93, "a"}, {97, 99, "b"},
		{101, 102, "b"}, {89, 101, "unattributed"}, {10, 2000, "unattributed"},
		{80, 98, "unattributed"}, // too long after it ended to be sure
	}},
	{"deletion told late", func(c *Cache, k *clock) {
		c.SetPod(a)
		k.Time = at(103)
		c.SetPod(b)
		k.Time = at(130)
		c.SetPod(a)
		c.DeletePod(a)
	}, []ask{
		{10, 99, "a"}, {101, 102, "unattributed"}, {104, 140, "b"},
	}},
	{"read in the other order", func(c *Cache, k *clock) {
		k.Time = at(103)
		c.SetPod(b)
		c.SetPod(a)
	}, []ask{{10, 99, "a"}, {104, 140, "b"}, {104, 4000, "b"}}},
	{"both since the same second", func(c *Cache, _ *clock) {
		c.SetPod(a)
		c.SetPod(pod("b", 0, x))
	}, []ask{{10, 20, "unattributed"}}},
	{"job completed, address reused", func(c *Cache, k *clock) {
		c.SetPod(a)
		k.Time = at(105)
		c.SetPod(ended(a, 50))
		c.SetPod(b)
		k.Time = at(200)
		c.SetPod(ended(a, 50)) // it keeps status.podIP
	}, []ask{{10, 49, "a"}, {70, 80, "cluster"}, {101, 300, "b"}, {40, 110, "unattributed"}}},
	{"job completed long ago", func(c *Cache, k *clock) {
		k.Time = at(7200)
		c.SetPod(ended(a, 50))
	}, []ask{{10, 40, "cluster"}}},
	{"address changed", func(c *Cache, k *clock) {
		c.SetPod(pod("a", 0, "10.0.0.9"))
		k.Time = at(50)
		c.SetPod(a)
	}, []ask{{10, 20, "cluster"}, {51, 60, "a"}}},
	{"address lost, and another's after a while", func(c *Cache, k *clock) {
		c.SetPod(pod("b", 0, "10.0.0.9"))
		c.SetPod(a)
		k.Time = at(40)
		c.SetPod(pod("b", 0))
		k.Time = at(50)
		c.DeletePod(a)
		k.Time = at(55)
		c.SetPod(pod("b", 0, x))
	}, []ask{{10, 30, "a"}, {42, 49, "unattributed"}, {56, 60, "b"}}},
	{"address lost, and the same after a while", func(c *Cache, k *clock) {
		c.SetPod(a)
		k.Time = at(40)
		c.SetPod(pod("a", 0))
		k.Time = at(60)
		c.SetPod(a)
	}, []ask{{10, 39, "a"}, {61, 70, "a"}, {10, 70, "a"}}},
	{"host network", func(c *Cache, _ *clock) {
		p := pod("a", 0, x)
		p.HostNetwork = true
		c.SetPod(p)
		c.DeletePod(p)
	}, []ask{{10, 20, "cluster"}}},
	{"same name again", func(c *Cache, k *clock) {
		c.SetPod(a)
		k.Time = at(50)
		c.DeletePod(a)
		again := pod("a", 51, "10.0.0.7")
		again.UID = "another"
		c.SetPod(again)
	}, []ask{{10, 20, "a"}, {70, 80, "cluster"}}},
}

func TestOwnerOverTime(t *testing.T) {
	for _, test := range times {
		t.Run(test.name, func(t *testing.T) {
			k := &clock{start}
			c := newTestCache(k)
			test.do(c, k)
			for _, ask := range test.asks {
				if got := says(c.Owner(query(x, ask.first, ask.last))); got != ask.want {
					t.Errorf("%v to %v: got %s, want %s", ask.first, ask.last, got, ask.want)
				}
			}
		})
	}
}

func TestHistoryIsBounded(t *testing.T) {
	k := &clock{start}
	c := newTestCache(k)
	for i := range 100 {
		k.Time = at(float64(i * 60))
		p := pod("a", float64(i*60), "10.0.0.1", "fd00::1")
		c.SetPod(p)
		c.DeletePod(p)
		if got := len(c.claims.byAddress[p.Addresses[0]]); got > 61 {
			t.Fatalf("after %d: got %d claims, want an hour's", i+1, got)
		}
	}
	if got := says(c.Owner(query("10.0.0.1", 4981, 4981))); got != "a" {
		t.Errorf("within history: got %s, want a", got)
	}
	k.Time = at(100_000)
	c.DeletePod(pod("a", 0))
	c.SetPod(pod("b", 0))
	if got := len(c.claims.byAddress) + len(c.claims.ended); got != 0 {
		t.Errorf("a day later: got %d claims, want none", got)
	}
}

// full returns a cache in which one address can be everything at once.
func full(k *clock) *Cache {
	c := newTestCache(k)
	c.SetNode(&Node{Name: "here", Zone: "z1", Addresses: addresses("192.0.2.1", "10.0.0.1", "10.0.0.3")})
	c.SetNode(&Node{Name: "there", Zone: "z2", Addresses: addresses("192.0.2.2"),
		PodRanges: []netip.Prefix{netip.MustParsePrefix("198.51.0.0/24")}})
	c.SetPod(pod("a", 0, "10.0.0.1", "2001:db8::1"))
	c.SetService(&Service{UID: "s", Namespace: "ns", Name: "web",
		Addresses: addresses("10.0.0.1", "10.0.0.2", "10.0.0.3"),
		Shared:    addresses("192.0.2.2", "203.0.113.1"),
		Ports:     []ServicePort{{flows.ProtocolTCP, 80}, {flows.ProtocolUDP, 53}}})
	c.SetHostAddresses(addresses("192.0.2.9", "169.254.20.10", "127.0.0.1", "fe80::9"))
	c.setNamed(map[netip.Prefix]string{
		netip.MustParsePrefix("198.51.100.0/24"): "office",
		netip.MustParsePrefix("198.51.100.7/32"): "printer",
		netip.MustParsePrefix("10.9.0.0/16"):     "lab",
		netip.MustParsePrefix("192.0.2.0/24"):    "dmz",
	})
	return c
}

func TestPartition(t *testing.T) {
	c := full(&clock{start})
	for _, test := range []struct {
		address  string
		protocol uint8
		port     uint16
		want     string
	}{
		{"10.0.0.1", 6, 80, "a"},
		{"::ffff:10.0.0.1", 6, 80, "a"},
		{"2001:db8::1", 6, 80, "a"},
		{"10.0.0.2", 6, 9999, "service:web"},
		{"10.0.0.2", 1, 0, "service:web"},
		{"10.0.0.3", 6, 80, "service:web"},
		{"203.0.113.1", 6, 80, "service:web"},
		{"203.0.113.1", 17, 53, "service:web"},
		{"203.0.113.1", 17, 80, "external"},
		{"203.0.113.1", 1, 0, "external"},
		{"192.0.2.2", 6, 80, "service:web"},
		{"192.0.2.2", 6, 22, "node:there"},
		{"192.0.2.1", 6, 22, "node:here"},
		{"192.0.2.9", 6, 22, "node:here"},
		{"169.254.20.10", 17, 53, "node:here"},
		{"fe80::9", 58, 0, "node:here"},
		{"192.0.2.3", 6, 22, "cidr:dmz"},
		{"10.9.1.1", 6, 22, "cidr:lab"},
		{"198.51.100.6", 6, 22, "cidr:office"},
		{"198.51.100.7", 6, 22, "cidr:printer"},
		{"10.8.1.1", 6, 22, "cluster"},
		{"198.51.0.5", 6, 22, "cluster"},
		{"198.51.1.5", 6, 22, "external"},
		{"172.16.0.1", 6, 22, "private"},
		{"172.32.0.1", 6, 22, "external"},
		{"192.168.0.1", 6, 22, "private"},
		{"100.64.0.1", 6, 22, "private"},
		{"100.127.255.255", 6, 22, "private"},
		{"100.128.0.0", 6, 22, "external"},
		{"fd12::1", 6, 22, "private"},
		{"224.0.0.1", 2, 0, "multicast"},
		{"255.255.255.255", 17, 67, "multicast"},
		{"ff02::1", 58, 0, "multicast"},
		{"169.254.1.1", 6, 22, "link_local"},
		{"fe80::1", 58, 0, "link_local"},
		{"127.0.0.1", 6, 22, "link_local"},
		{"::1", 6, 22, "link_local"},
		{"0.0.0.0", 17, 68, "link_local"},
		{"::", 58, 0, "link_local"},
		{"2001:db8::2", 6, 22, "external"},
	} {
		q := query(test.address, 0, 1)
		q.Protocol, q.Port = test.protocol, test.port
		if got := says(c.Owner(q)); got != test.want {
			t.Errorf("%s protocol %d port %d: got %s, want %s", test.address, test.protocol, test.port, got, test.want)
		}
	}
	if got := c.Owner(flows.Query{}); got.Kind != flows.PeerUnattributed {
		t.Errorf("no address: got %v, want unattributed", got.Kind)
	}
}

func TestOwnerOfPod(t *testing.T) {
	k := &clock{start}
	c := newTestCache(k)
	p := pod("web-5d-x", 0, "10.0.0.1")
	p.Workload = flows.Workload{Type: "deployment", Name: "web"}
	p.Node = "there"
	c.SetPod(p)
	want := &flows.Owner{Kind: flows.PeerPod, Namespace: "ns", Name: "web", WorkloadType: "deployment",
		Pod: "web-5d-x", Node: "there"}
	if diff := cmp.Diff(want, c.Owner(query("10.0.0.1", 1, 2))); diff != "" {
		t.Error("before its node is known:", diff)
	}
	for _, zone := range []string{"z1", "z2"} {
		c.SetNode(&Node{Name: "there", Zone: zone})
		want.Zone = zone
		if diff := cmp.Diff(want, c.Owner(query("10.0.0.1", 1, 2))); diff != "" {
			t.Errorf("in zone %s: %s", zone, diff)
		}
	}
	c.DeleteNode("there")
	if got := c.Owner(query("10.0.0.1", 1, 2)).Zone; got != "" {
		t.Errorf("zone of a node that is gone: got %q, want none", got)
	}
}

// A pod has one workload, whichever end of a flow it is; without a controller it is its own.
func TestOneWorkloadAtBothEnds(t *testing.T) {
	for _, test := range []struct{ controller, want flows.Workload }{
		{flows.Workload{}, flows.Workload{Type: flows.BarePod, Name: "lone"}},
		{flows.Workload{Type: "staticpod", Name: "lone"}, flows.Workload{Type: "staticpod", Name: "lone"}},
		{flows.Workload{Type: "deployment", Name: "web"}, flows.Workload{Type: "deployment", Name: "web"}},
	} {
		c := newTestCache(&clock{start})
		p := pod("lone", 0, "10.0.0.1")
		p.Workload = test.controller
		c.SetPod(p)
		owner := c.Owner(query("10.0.0.1", 1, 2))
		peer := flows.Workload{Type: owner.WorkloadType, Name: owner.Name}
		metered := c.LocalPod(netip.MustParseAddr("10.0.0.1"), at(1), at(2)).Workload
		if peer != test.want || metered != test.want {
			t.Errorf("controller %v: got %v as a peer and %v metered, want %v", test.controller, peer, metered, test.want)
		}
	}
}

func TestServiceMoves(t *testing.T) {
	k := &clock{start}
	c := newTestCache(k)
	s := Service{UID: "s", Name: "web", Addresses: addresses("10.0.0.2"), Created: at(-100),
		Shared: addresses("203.0.113.1"), Ports: []ServicePort{{flows.ProtocolTCP, 80}}}
	c.SetService(&s)
	k.Time = at(50)
	moved := s
	moved.Ports = []ServicePort{{flows.ProtocolTCP, 8080}}
	c.SetService(&moved)
	k.Time = at(100)
	c.DeleteService("s")
	for _, test := range []struct {
		address     string
		port        uint16
		first, last float64
		want        string
	}{
		{"203.0.113.1", 80, 10, 20, "service:web"},
		{"203.0.113.1", 80, 60, 70, "external"},
		{"203.0.113.1", 8080, 10, 20, "external"},
		{"203.0.113.1", 8080, 60, 70, "service:web"},
		{"203.0.113.1", 8080, 110, 120, "external"},
		{"10.0.0.2", 1, 0, 99, "service:web"},
		{"10.0.0.2", 1, 110, 120, "cluster"},
	} {
		q := query(test.address, test.first, test.last)
		q.Port = test.port
		if got := says(c.Owner(q)); got != test.want {
			t.Errorf("%s:%d %v to %v: got %s, want %s", test.address, test.port, test.first, test.last, got, test.want)
		}
	}
}

func TestHere(t *testing.T) {
	c := newTestCache(&clock{start})
	c.SetHostAddresses(addresses("192.0.2.1"))
	c.SetNode(&Node{Name: "here", Zone: "z1"})
	if node, zone := c.Here(); node != "here" || zone != "z1" {
		t.Errorf("got %q in %q, want here in z1", node, zone)
	}
	want := &flows.Owner{Kind: flows.PeerNode, Name: "here", Node: "here", Zone: "z1"}
	if diff := cmp.Diff(want, c.Owner(query("192.0.2.1", 0, 0))); diff != "" {
		t.Error(diff)
	}
}

func TestRangesComeAndGo(t *testing.T) {
	c := newTestCache(&clock{start})
	prefix := []netip.Prefix{netip.MustParsePrefix("198.51.0.0/16")}
	ask := func() string { return says(c.Owner(query("198.51.1.1", 0, 0))) }
	c.SetNode(&Node{Name: "a", PodRanges: prefix})
	c.SetNode(&Node{Name: "b", PodRanges: prefix})
	c.DeleteNode("a")
	if got := ask(); got != "cluster" {
		t.Errorf("named by one: got %s, want cluster", got)
	}
	c.SetNode(&Node{Name: "b"})
	if got := ask(); got != "external" {
		t.Errorf("named by none: got %s, want external", got)
	}
}
