// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// The clock was ahead when the agent started, and is set back: pods that started before have their
// addresses, and one that ended then does not have its own any more.
func TestClockIsSetBack(t *testing.T) {
	for _, ahead := range []float64{30, 7200} {
		c, set := newSetCache(100, ahead)
		far := pod("far", ahead+80, "10.0.1.1")
		far.Node = "there"
		c.SetPod(far)
		c.SetPod(pod("here", ahead+80, x))
		c.SetPod(pod("old", -1000, "10.0.0.9"))
		set(110, ahead)
		c.DeletePod(pod("old", -1000, "10.0.0.9"))
		set(120, 0)
		c.SetPod(pod("next", 118, "10.0.1.2"))
		owns := func(address, want string) {
			t.Helper()
			if got := says(c.Owner(query(address, 130, 131))); got != want {
				t.Errorf("%v s ahead, %s: got %s, want %s", ahead, address, got, want)
			}
		}
		owns("10.0.1.1", "far")
		owns(x, "here")
		owns("10.0.1.2", "next")
		owns("10.0.0.9", "cluster")
		if got := c.LocalPod(addresses(x)[0], at(85), at(130)); got == nil || got.Name != "here" {
			t.Errorf("%v s ahead: got %v, want here", ahead, got)
		}
		if got := c.LocalPod(addresses("10.0.0.9")[0], at(120), at(130)); got != nil {
			t.Errorf("%v s ahead: got %v, whose end was before", ahead, got.Name)
		}
		c.SetPod(pod("new", 125, "10.0.0.9"))
		owns("10.0.0.9", "new")
		if got := c.LocalPod(addresses("10.0.0.9")[0], at(128), at(130)); got == nil || got.Name != "new" {
			t.Errorf("%v s ahead: got %v, want new", ahead, got)
		}
	}
}

// The clock was behind when the agent started: what came before it was set on is as long ago as it was,
// so that nothing is forgotten or has ended for it.
func TestClockIsSetOn(t *testing.T) {
	c, set := newSetCache(100, -7200)
	c.SetPod(pod("a", 80-7200, x))
	set(110, -7200)
	c.DeletePod(pod("a", 80-7200, x))
	set(112, 0)
	c.SetPod(pod("b", 111, x))
	for _, test := range []struct {
		first, last float64
		want        string
	}{{100, 109, "a"}, {105, 115, "unattributed"}, {113, 115, "b"}} {
		if got := says(c.Owner(query(x, test.first, test.last))); got != test.want {
			t.Errorf("%v to %v: got %s, want %s", test.first, test.last, got, test.want)
		}
	}
	c.SetPod(pod("b", 111, x, "10.0.0.2")) // its start is what it was
	set(115, 3600)
	c.SetPod(pod("b", 111, x, "10.0.0.3"))
	if got := c.LocalPod(addresses(x)[0], at(3600+112), at(3600+115)); got == nil || got.Name != "b" {
		t.Errorf("got %v, want b", got)
	}
	if got := c.LocalPod(addresses(x)[0], at(3600+100), at(3600+115)); got != nil {
		t.Errorf("got %v for an interface that is older", got.Name)
	}
}

// Times of this process are on the timeline whatever the clock shows.
func TestTimesOfThisProcess(t *testing.T) {
	l := newTimeline(time.Now())
	l.set = time.Hour
	if got := l.at(l.began.Add(time.Minute)) - l.began.UnixNano(); got != int64(time.Minute) {
		t.Errorf("got %v, want a minute", time.Duration(got))
	}
	if got := l.at(l.began.Add(time.Minute).Round(0)) - l.began.UnixNano(); got != int64(time.Minute-time.Hour) {
		t.Errorf("got %v for a time of the API, want 59 minutes less", time.Duration(got))
	}
}

// newSetCache returns a cache whose clock shows ahead more seconds than it should, and what sets both.
func newSetCache(seconds, ahead float64) (c *Cache, set func(seconds, ahead float64)) {
	shown := &clock{at(seconds + ahead)}
	c = newTestCache(shown)
	elapsed, began := time.Duration(0), seconds
	c.times.elapsed = func(time.Time) time.Duration { return elapsed }
	return c, func(seconds, ahead float64) {
		shown.Time, elapsed = at(seconds+ahead), at(seconds).Sub(at(began))
	}
}

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

// The clock was set back between the attachment of an interface and a restart of the agent: what the host routes
// to it binds it as if it had been there for long.
func TestInterfaceOfTheFuture(t *testing.T) {
	now := &clock{at(20)}
	c := newTestCache(now)
	c.SetPod(pod("a", 7205, x))
	b := flows.AddressBinder{Directory: c, MinAge: newsAge, Now: now.now}
	for _, test := range []struct {
		attached float64
		want     bool
	}{{7210, true}, {21, true}, {20, false}, {16, false}, {15, true}} {
		i := flows.Interface{Name: device, Attached: at(test.attached), Addresses: addresses(x)}
		if got := b.Bind(i, nil, new(flows.Bound)) != nil; got != test.want {
			t.Errorf("attached after %v s: got bound %v, want %v", test.attached, got, test.want)
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

// A pod of another node, whose clock is behind, has its address until its end is heard of.
func TestPodOfANodeBehind(t *testing.T) {
	for name, end := range map[string]func(*Cache, *Pod){
		"completed": func(c *Cache, p *Pod) { c.SetPod(ended(p, -590)) },
		"deleted":   func(c *Cache, p *Pod) { c.DeletePod(ended(p, -590)) },
	} {
		t.Run(name, func(t *testing.T) {
			now := &clock{at(0)}
			c := newTestCache(now)
			far := pod("far", -600, "10.0.1.1")
			far.Node, far.Created = "there", at(-1)
			c.SetPod(far)
			now.Time = at(10)
			end(c, far)
			next := pod("next", -587, "10.0.1.1")
			next.Node, next.Created = "there", at(12)
			now.Time = at(13)
			c.SetPod(next)
			for _, ask := range []ask{{2, 9, "far"}, {14, 20, "next"}} {
				if got := says(c.Owner(query("10.0.1.1", ask.first, ask.last))); got != ask.want {
					t.Errorf("%v to %v: got %s, want %s", ask.first, ask.last, got, ask.want)
				}
			}
		})
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
