// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"testing"

	"github.com/podmeter/podmeter/flows"
)

var _ flows.OwnAddresses = (*Cache)(nil)

func TestForeignAddresses(t *testing.T) {
	k := &clock{start}
	c := newTestCache(k)
	onHost := pod("host", 0, "192.0.2.1")
	onHost.HostNetwork = true
	for _, p := range []*Pod{pod("a", 0, x, "fd00::1"), pod("b", 0, "10.0.0.2"), pod("new", 0), onHost} {
		c.SetPod(p)
	}
	k.Time = at(100)
	c.SetPod(pod("b", 0, "10.0.0.3")) // another sandbox
	for _, test := range []struct {
		pod, address string
		first, last  float64
		want         bool
	}{
		{"a", x, 10, 20, false},
		{"a", "::ffff:10.0.0.1", 10, 20, false},
		{"a", "fd00::1", 10, 20, false},
		{"a", "10.0.0.2", 10, 20, true},
		{"a", "10.0.0.99", 10, 20, true},
		{"a", "203.0.113.1", 10, 20, true},
		{"b", "10.0.0.2", 10, 99, false},
		{"b", "10.0.0.2", 102, 103, false}, // its last packets
		{"b", "10.0.0.2", 120, 130, true},
		{"b", "10.0.0.3", 97, 99, false}, // of which the news came late
		{"b", "10.0.0.3", 120, 130, false},
		{"new", "10.0.0.9", 10, 20, false}, // nobody knows what it has
		{"host", "10.0.0.9", 10, 20, false},
		{"gone", "10.0.0.9", 10, 20, false},
	} {
		got := c.Foreign(&flows.Pod{UID: "uid-" + test.pod}, netip.MustParseAddr(test.address), at(test.first), at(test.last))
		if got != test.want {
			t.Errorf("%s from %s, %v to %v: got %t, want %t", test.pod, test.address, test.first, test.last, got, test.want)
		}
	}
}

// Another pod's claim of a pod's address does not make it foreign.
func TestContestedAddressIsNotForeign(t *testing.T) {
	k := &clock{start}
	c := newTestCache(k)
	c.SetPod(a)
	k.Time = at(103)
	c.SetPod(b)
	c.SetPod(far("liar", "n2", 50, x))
	if c.Foreign(&a.Pod, netip.MustParseAddr(x), at(120), at(130)) {
		t.Error("the first pod's own address: got foreign")
	}
}
