// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// Auto takes TCX where the kernel has it, else netlink, and then counts the same.
func TestAutoTakesWhatTheKernelHas(t *testing.T) {
	t.Parallel()
	want := AttachNetlink
	if ktest.HaveTCX(t) {
		want = AttachTCX
	}
	d, objects := newTestDrainer(t, 4096)
	a := newAttacher(AttachAuto, &objects.MeterObjects, testPins(t))
	for range 2 { // what the first finds out stands for all
		w := newWire(t)
		if err := d.createPoint(uint32(w.index)); err != nil {
			t.Fatal(err)
		}
		before := w.settled(t)
		counted := metered(t, d, w.index) // another's, that has the same index
		var h hooks
		var got AttachMode
		err := w.host.Do(func() (err error) {
			h, got, err = a.attach(w.index, false)
			return err
		})
		if err != nil || got != want {
			t.Fatalf("attach: got %s, %v, want %s", got, err, want)
		}
		w.pod.Send(t, "198.51.100.1:9", 100, 30)
		after := w.settled(t)
		for direction := range flows.Direction(flows.Directions) {
			got, want := metered(t, d, w.index)[direction].Sub(counted[direction]), after[direction].Sub(before[direction])
			if got != want || want.IsZero() {
				t.Errorf("%s: got %+v, want the interface's own %+v", direction, got, want)
			}
		}
		if err := w.host.Do(h.detach); err != nil {
			t.Fatalf("detach: %v", err)
		}
	}
}
