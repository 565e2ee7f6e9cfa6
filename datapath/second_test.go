// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// resident is one of several meters on an interface, with a pin path of its own.
type resident struct {
	*archive
	*life
	o      Options
	before byDirection // it came
}

func newResident(t *testing.T, w *wire, mode AttachMode) *resident {
	t.Helper()
	r := &resident{archive: newArchive(), o: testOptions(t, w.host, nil)}
	r.o.Attach, r.o.MapMemory = mode, 1 // as small as can be
	cleanPins(t, r.o)
	r.life = r.archive.start(t, r.o)
	ktest.Await(t, "veth0 is attached", r.life.attached(1))
	ktest.Await(t, "a checkpoint", r.hasSaved)
	r.before = r.life.Interfaces()[0].Before
	return r
}

func (r *resident) goOn(t *testing.T) {
	t.Helper()
	r.life = r.archive.start(t, r.o)
	if resumed, why := r.life.Resumed(); !resumed {
		t.Errorf("not resumed: %v", why)
	}
	ktest.Await(t, "veth0 is attached", r.life.attached(1))
}

// Two meters on one interface, in all modes: each counts everything, adopts its
// own, and is none the worse for the end of the other, whoever came first.
func TestSecondMeter(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		first, second AttachMode
		// secondLeaves is whether the second is uninstalled before the first.
		secondLeaves bool
		clsactStays  bool // as who created it could not delete it
	}{
		{"tcx", AttachTCX, AttachTCX, false, false},
		{"netlink, the first leaves", AttachNetlink, AttachNetlink, false, true},
		{"netlink, the second leaves", AttachNetlink, AttachNetlink, true, false},
		{"netlink, then tcx", AttachNetlink, AttachTCX, false, false},
		{"tcx, then netlink", AttachTCX, AttachNetlink, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.first == AttachTCX || test.second == AttachTCX {
				ktest.RequireTCX(t)
			}
			w := newQuietWire(t)
			start := takeInventory(t, w.host)
			first := newResident(t, w, test.first)
			second := newResident(t, w, test.second)
			w.talk(t)
			first.life.stop(t)
			w.talk(t)
			second.life.kill(t)
			w.talk(t)
			first.goOn(t)
			second.goOn(t)
			w.talk(t)
			leaver, stayer := first, second
			if test.secondLeaves {
				leaver, stayer = second, first
			}
			leaver.leave(t, w)
			w.talk(t)
			if !stayer.life.attached(1)() {
				t.Errorf("the other has left: got %+v, want it attached", stayer.life.Interfaces())
			}
			stayer.leave(t, w)
			if got := w.clsactThere(t); got != test.clsactStays {
				t.Errorf("both have left: got a clsact %t, want %t", got, test.clsactStays)
			}
			ktest.Await(t, "nothing of ours", func() bool { return len(takeInventory(t, w.host).foreign) == len(start.foreign) })
			compareLists(t, "both have left", takeInventory(t, w.host).foreign, start.foreign)
		})
	}
}

// leave checks that a meter counted everything since it came, and uninstalls it.
func (r *resident) leave(t *testing.T, w *wire) {
	t.Helper()
	want := byDirection(w.settled(t)).sub(r.before)
	r.life.stop(t)
	totals, seeded := r.archive.of("veth0")
	if totals != want || seeded != (byDirection{}) || want[flows.Receive].Packets < 100 {
		t.Errorf("got %v and %v seeded, want %v", totals, seeded, want)
	}
	if r.failed != 0 || r.residue != 0 {
		t.Errorf("got a conservation error of %d and a residue of %d, want none", r.failed, r.residue)
	}
	uninstall(t, w.host, r.o.PinPath)
}
