// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
)

// move takes the host's end into another network namespace, where it is up. It
// goes by its name, as it may get another ifindex.
func (w *wire) move(t testing.TB, from, to *ktest.Namespace, name string) {
	t.Helper()
	var err error
	if w.index, err = moveLink(from, to, name); err != nil {
		t.Fatal(err)
	}
	to.Address(t, name, "198.51.100.1/24") // the move has taken it away
}

// moveLink takes a link into another network namespace, where it is up, and returns
// the ifindex that it has there.
func moveLink(from, to *ktest.Namespace, name string) (index int, err error) {
	err = from.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetNsFd(l, to.FD())
	})
	if err == nil {
		err = to.Do(func() error {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			index = l.Attrs().Index
			return netlink.LinkSetUp(l)
		})
	}
	if err != nil {
		return 0, fmt.Errorf("move %s: %w", name, err)
	}
	return index, nil
}

// A host's end that moves into another network namespace is left alone there. When
// it comes back, what it counted away is a gap; nothing is published twice.
func TestMovesAwayAndBack(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		for _, how := range []string{"at once", "with another ifindex", "to another meter"} {
			t.Run(fmt.Sprint(mode, " ", how), func(t *testing.T) {
				t.Parallel()
				requireMode(t, mode)
				testMovesAwayAndBack(t, mode, how)
			})
		}
	}
}

func testMovesAwayAndBack(t *testing.T, mode AttachMode, how string) {
	w := newWire(t)
	away := ktest.NewNamespace(t)
	away.Sysctl(t, "net/ipv6/conf/default/disable_ipv6", "1")
	a, o, l, unpublished := install(t, w, func(o *Options) { o.Attach = mode })
	w.pod.Send(t, "198.51.100.1:9", 100, 30)
	index := w.index
	w.move(t, w.host, away, "veth0")
	if how != "at once" {
		ktest.Await(t, "veth0 has been let go of", l.attached(0))
		w.pod.Send(t, "198.51.100.1:9", 100, 20) // counted by the interface alone
		(&wire{host: away, index: w.index}).settled(t)
	}
	switch how {
	case "with another ifindex":
		w.host.VethAt(t, index, "veth1", ktest.NewNamespace(t), "eth0")
		ktest.Await(t, "veth1 is attached", l.attached(1))
	case "to another meter":
		l.stop(t)
		l = a.start(t, o)
	}
	w.move(t, away, w.host, "veth0")
	if (w.index == index) == (how == "with another ifindex") {
		t.Fatalf("ifindex: got %d after %d", w.index, index)
	}
	// Where it comes back at once, the state may be that of before the move.
	ktest.Await(t, "veth0 is attached again", func() bool {
		return l.stateOf(w.index) == StateAttached && (&linkWatcher{Meter: l.Meter}).alive(uint32(w.index))
	})
	w.pod.Send(t, "198.51.100.1:9", 100, 10)
	want := w.ended(t).sub(unpublished)
	l.stop(t)
	if totals, seeded := a.of("veth0"); totals.add(seeded) != want {
		t.Errorf("got %v and %v seeded, want the interface's %v", totals, seeded, want)
	}
	if a.failed != 0 {
		t.Errorf("conservation error: got %d, want 0", a.failed)
	}
}

func (l *life) stateOf(index int) State {
	for _, i := range l.Interfaces() {
		if int(i.Point) == index {
			return i.State
		}
	}
	return ""
}

// A device that looks like one that left, but has begun to count later, is another.
func TestDepartedIsKnownByItsCounters(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	r.put(&attachment{point: 7, device: "d", vanished: true, mayReturn: true, seeded: true})
	r.forget(7, packets(30, 20))
	if got := r.departed["d"].counters; got != packets(30, 20) {
		t.Errorf("departed: got %v, want all that was counted", got)
	}
	for _, test := range []struct {
		now, want byDirection
	}{
		{packets(31, 19), byDirection{}},
		{packets(31, 20), packets(30, 20)},
	} {
		a := &attachment{point: 9, device: "d"}
		r.departed["d"] = past{device: "d", counters: packets(30, 20)}
		r.enter(a, test.now)
		if a.ledger.base != test.want || a.seeded != (test.want != byDirection{}) {
			t.Errorf("with %v: got base %v, seeded %t, want %v", test.now, a.ledger.base, a.seeded, test.want)
		}
	}
	for n := range 2 * maxDeparted {
		r.depart(past{device: fmt.Sprint(n)})
	}
	if len(r.departed) != maxDeparted {
		t.Errorf("got %d devices remembered, want at most %d", len(r.departed), maxDeparted)
	}
}
