// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podmeter/podmeter/flows"
)

func TestLocalPod(t *testing.T) {
	leaving := pod("a", 0, x)
	leaving.Leaving = true
	elsewhere := pod("a", 0, x)
	elsewhere.Node = "there"
	for _, test := range []struct {
		name string
		do   func(*Cache, *clock)
		asks []ask
	}{
		{"nobody", func(*Cache, *clock) {}, []ask{{0, 10, ""}}},
		{"of this node", func(c *Cache, _ *clock) { c.SetPod(a) }, []ask{{1, 10, "a"}, {0, 0, "a"}, {-1, 10, ""}}},
		{"of another node", func(c *Cache, _ *clock) { c.SetPod(elsewhere) }, []ask{{1, 10, ""}}},
		{"moved here from another node", func(c *Cache, k *clock) {
			c.SetPod(elsewhere)
			k.Time = at(103)
			c.SetPod(b)
		}, []ask{{101, 104, "b"}}},
		{"being deleted: the interface may be the next one's", func(c *Cache, _ *clock) {
			c.SetPod(a)
			c.SetPod(leaving)
		}, []ask{{1, 10, ""}}},
		{"ended: not an interface that is still there", func(c *Cache, k *clock) {
			c.SetPod(a)
			k.Time = at(50)
			c.DeletePod(ended(leaving, 40))
		}, []ask{{1, 41, "a"}, {1, 60, ""}, {42, 43, ""}, {40.5, 43, ""}}},
		{"deleted by force, its interface gone before", func(c *Cache, k *clock) {
			c.SetPod(a)
			k.Time = at(50)
			c.DeletePod(a)
		}, []ask{{1, 49, "a"}, {1, 51, ""}}},
		{"handed on, deletion told late", func(c *Cache, k *clock) {
			c.SetPod(a)
			k.Time = at(103)
			c.SetPod(b)
		}, []ask{{1, 99, "a"}, {101, 102, ""}, {101, 104, ""}, {101, 109, "b"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := &clock{start}
			c := newTestCache(k)
			test.do(c, k)
			for _, ask := range test.asks {
				got := ""
				if p := c.LocalPod(netip.MustParseAddr(x), at(ask.first), at(ask.last)); p != nil {
					got = p.Name
				}
				if got != ask.want {
					t.Errorf("%v to %v: got %q, want %q", ask.first, ask.last, got, ask.want)
				}
			}
		})
	}
}

func TestLocalPods(t *testing.T) {
	c := newTestCache(&clock{start})
	onHost, far := pod("host", 0, "192.0.2.1"), pod("far", 0, "10.0.0.8")
	onHost.HostNetwork, far.Node = true, "there"
	for _, p := range []*Pod{pod("a", 0, "10.0.0.1"), onHost, far, ended(pod("job", 0, "10.0.0.2"), 9), pod("new", 0)} {
		c.SetPod(p)
	}
	got := c.LocalPods()
	slices.SortFunc(got, func(a, b LocalPod) int { return len(a.Name) - len(b.Name) + int(a.Name[0]) - int(b.Name[0]) })
	want := []LocalPod{
		{UID: "uid-a", Namespace: "ns", Name: "a", Running: true},
		{UID: "uid-host", Namespace: "ns", Name: "host", HostNetwork: true, Running: true},
		{UID: "uid-job", Namespace: "ns", Name: "job"},
		{UID: "uid-new", Namespace: "ns", Name: "new"},
	}
	slices.SortFunc(want, func(a, b LocalPod) int { return len(a.Name) - len(b.Name) + int(a.Name[0]) - int(b.Name[0]) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLocalPodIsWhole(t *testing.T) {
	c := newTestCache(&clock{start})
	c.SetNode(&Node{Name: "here", Zone: "z1"})
	p := pod("a", 0, "10.0.0.1")
	p.Container, p.Workload = "main", flows.Workload{Type: "job", Name: "j"}
	c.SetPod(p)
	want := &flows.Pod{UID: "uid-a", Namespace: "ns", Name: "a", Container: "main",
		Workload: flows.Workload{Type: "job", Name: "j"}, Node: "here", Zone: "z1"}
	if diff := cmp.Diff(want, c.LocalPod(p.Addresses[0], at(1), at(2))); diff != "" {
		t.Error(diff)
	}
}
