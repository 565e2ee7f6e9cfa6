// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
)

// A meter that is killed after it deleted a point, and before its checkpoint could
// say so, has published what that counted: a later attachment seeds only the gap.
func TestKilledWhenAPointWasDeleted(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	// Only the test drains.
	a, o, l, unpublished := install(t, w, func(o *Options) { o.Interfaces, o.DrainInterval = []string{"veth*"}, time.Hour })
	w.pod.Send(t, "198.51.100.1:9", 100, 40)
	w.rename(t, "other")
	ktest.Await(t, "veth0 has been left", func() bool { return l.stateOf(w.index) == StateGone })
	for l.stateOf(w.index) != "" {
		if err := l.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.kill(t)
	o.DrainInterval = 20 * time.Millisecond
	l = a.start(t, o)
	w.pod.Send(t, "198.51.100.1:9", 100, 10)
	w.rename(t, "veth0")
	ktest.Await(t, "veth0 is attached again", l.attached(1))
	w.pod.Send(t, "198.51.100.1:9", 100, 5)
	want := w.ended(t).sub(unpublished)
	l.stop(t)
	var got byDirection
	for _, name := range []string{"veth0", "other"} {
		totals, seeded := a.of(name)
		got = got.add(totals).add(seeded)
	}
	if !w.agree(t, got, want) {
		t.Errorf("got %v, want the interface's %v", got, want)
	}
}

// What passed before the first start of all is nobody's, also when the attachment is
// left before it is known how much that was.
func TestUnsettledPastIsNobodys(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	first := &attachment{point: 7, device: "d"}
	r.enter(first, packets(100, 90))
	first.leave(time.UnixMilli(5))
	r.forget(7, packets(3, 2))
	again := &attachment{point: 7, device: "d"}
	r.enter(again, packets(110, 95))
	if want := packets(103, 92); again.ledger.base != want || !again.seeded {
		t.Errorf("got base %v, seeded %t, want %v and the gap seeded", again.ledger.base, again.seeded, want)
	}
}
