// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
)

// An ifindex comes back, and the agent is killed before any checkpoint knows of it:
// what the one before it had counted is not taken off the new one.
func TestIndexThatComesBackBeforeAKill(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	// No drain but those that free the index.
	a, o, l, before := install(t, w, func(o *Options) { o.DrainInterval = time.Hour })
	w.pod.Send(t, "198.51.100.1:9", 100, 100)
	want := w.ended(t).sub(before)
	w.host.DeleteLink(t, "veth0")
	young := wireFrom(t, w.host, beside("veth1", w.index))
	ktest.Await(t, "veth1 is attached", func() bool {
		all := l.Interfaces()
		return len(all) == 1 && all[0].Name == "veth1" && all[0].State != StateSettling && all[0].State != StateGone
	})
	young.pod.Send(t, "203.0.113.1:9", 100, 5)
	l.kill(t)
	l = a.start(t, o)
	wantYoung := young.ended(t)
	l.stop(t)
	if totals, seeded := a.of("veth0"); totals.add(seeded) != want {
		t.Errorf("veth0: got %v and %v seeded, want %v", totals, seeded, want)
	}
	if totals, seeded := a.of("veth1"); totals.add(seeded) != wantYoung {
		t.Errorf("veth1: got %v and %v seeded, want %v", totals, seeded, wantYoung)
	}
	if a.failed != 0 || a.residue != 0 {
		t.Errorf("got a conservation error of %d and a residue of %d, want none", a.failed, a.residue)
	}
}
