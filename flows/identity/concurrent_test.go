// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/podmeter/podmeter/flows"
)

// TestConcurrentUse is for the race detector: everything that changes a cache
// beside everything that asks it.
func TestConcurrentUse(t *testing.T) {
	c := newTestCache(&clock{start})
	prefix := netip.MustParsePrefix("198.18.0.0/16")
	var running sync.WaitGroup
	for _, do := range []func(){
		func() { c.SetPod(pod("a", 0, x)); c.DeletePod(pod("a", 0, x)) },
		func() { c.SetNode(&Node{Name: "here", PodRanges: []netip.Prefix{prefix}}); c.DeleteNode("here") },
		func() { c.SetService(&Service{UID: "s", Addresses: addresses(x)}); c.DeleteService("s") },
		func() { c.SetHostAddresses(addresses(x)); c.setNamed(map[netip.Prefix]string{prefix: "n"}) },
		func() {
			if o := c.Owner(query(x, 0, 1)); o.Kind == flows.PeerExternal {
				t.Errorf("got %s, want what it may be", says(o))
			}
			c.LocalPod(netip.MustParseAddr(x), at(0), at(1))
		},
		func() { c.Here(); c.LocalPods(); c.Counts() },
	} {
		running.Go(func() {
			for range 500 {
				do()
			}
		})
	}
	running.Wait()
}
