// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"testing"
)

// The clock was set back between a pod's start and the attachment of its interface: a start
// that is yet to come says nothing.
func TestPodOfTheFuture(t *testing.T) {
	for _, ahead := range []float64{6, 7200} {
		now := &clock{at(2)}
		c := newTestCache(now)
		c.SetPod(pod("a", 2+ahead, "10.0.0.1"))
		if got := c.LocalPod(addresses("10.0.0.1")[0], at(1), at(2)); got == nil || got.Name != "a" {
			t.Errorf("%v s ahead: got %v, want a", ahead, got)
		}
		// Beside one that had the address before nothing is certain.
		c = newTestCache(now)
		c.SetPod(pod("old", 0, "10.0.0.1"))
		c.DeletePod(pod("old", 0, "10.0.0.1"))
		c.SetPod(pod("a", 2+ahead, "10.0.0.1"))
		if got := c.LocalPod(addresses("10.0.0.1")[0], at(1), at(2)); got != nil {
			t.Errorf("%v s ahead, after another: got %v, want none", ahead, got)
		}
	}
}

// A pod of another node, whose clock is ahead, has its address when it is heard of.
func TestPodOfANodeAhead(t *testing.T) {
	c := newTestCache(&clock{at(100)})
	far := pod("far", 700, "10.0.1.1")
	far.Node = "there"
	c.SetPod(far)
	if got := says(c.Owner(query("10.0.1.1", 100, 101))); got != "far" {
		t.Errorf("got %s, want far", got)
	}
}

// Of two Node objects of one address, as of a host that was renamed, the one that is ready has
// it, or the younger one.
func TestNodesOfOneAddress(t *testing.T) {
	node := func(name string, created float64, ready bool) *Node {
		return &Node{Name: name, Addresses: addresses("192.0.2.9"), Created: at(created), Ready: ready}
	}
	for name, test := range map[string]struct {
		nodes []*Node
		want  string
	}{
		"one ready, the elder":     {[]*Node{node("old", 0, true), node("new", 5, false)}, "node:old"},
		"one ready, the younger":   {[]*Node{node("old", 0, false), node("new", 5, true)}, "node:new"},
		"none ready":               {[]*Node{node("old", 0, false), node("new", 5, false)}, "node:new"},
		"both ready":               {[]*Node{node("old", 0, true), node("new", 5, true)}, "node:new"},
		"three":                    {[]*Node{node("old", 0, true), node("new", 5, false), node("middle", 3, true)}, "node:middle"},
		"none of them before all":  {[]*Node{node("one", 5, true), node("two", 5, true)}, "unattributed"},
		"two alike, and one more":  {[]*Node{node("one", 5, false), node("two", 5, false), node("new", 4, true)}, "node:new"},
		"two alike before the old": {[]*Node{node("old", 1, false), node("one", 5, false), node("two", 5, false)}, "unattributed"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // in both orders
				c := newTestCache(&clock{at(100)})
				for _, n := range test.nodes {
					c.SetNode(n)
				}
				if got := says(c.Owner(query("192.0.2.9", 50, 60))); got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
				for i, j := 0, len(test.nodes)-1; i < j; i, j = i+1, j-1 {
					test.nodes[i], test.nodes[j] = test.nodes[j], test.nodes[i]
				}
			}
		})
	}
	t.Run("it becomes ready", func(t *testing.T) {
		now := &clock{at(100)}
		c := newTestCache(now)
		c.SetNode(node("old", 0, true))
		c.SetNode(node("new", 5, false))
		now.Time = at(110)
		c.SetNode(node("old", 0, false))
		c.SetNode(node("new", 5, true))
		if got := says(c.Owner(query("192.0.2.9", 110, 111))); got != "node:new" {
			t.Errorf("got %s, want node:new", got)
		}
	})
	t.Run("this node's own", func(t *testing.T) {
		c := newTestCache(&clock{at(100)})
		c.SetHostAddresses(addresses("192.0.2.9"))
		c.SetNode(node("here", 0, true))
		c.SetNode(node("stale", 0, true))
		if got := says(c.Owner(query("192.0.2.9", 100, 101))); got != "node:here" {
			t.Errorf("got %s, want node:here", got)
		}
	})
}

// An address that an ended pod's status lost and shows again is its successor's.
func TestEndedPodWhoseAddressReturns(t *testing.T) {
	now := &clock{at(10)}
	c := newTestCache(now)
	c.SetPod(pod("a", 0, x))
	now.Time = at(50)
	done := ended(pod("a", 0, x), 50)
	c.SetPod(done)
	now.Time = at(55)
	without := ended(pod("a", 0), 50)
	c.SetPod(without)
	now.Time = at(61)
	c.SetPod(pod("b", 60, x))
	for _, seconds := range []float64{70, 75} {
		now.Time = at(seconds)
		if seconds == 70 {
			c.SetPod(done)
		}
		if got := says(c.Owner(query(x, seconds-5, seconds))); got != "b" {
			t.Errorf("at %v s: got %s, want b", seconds, got)
		}
		if got := c.LocalPod(addresses(x)[0], at(61), at(seconds)); got == nil || got.Name != "b" {
			t.Errorf("interface, at %v s: got %v, want b", seconds, got)
		}
	}
	if got := says(c.Owner(query(x, 20, 30))); got != "a" {
		t.Errorf("before: got %s, want a", got)
	}
}
