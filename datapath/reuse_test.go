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
	w := newWire(t)
	// No drain but those that free the index.
	a, o, l, before := install(t, w, func(o *Options) { o.DrainInterval = time.Hour })
	sendUDP(t, w.pod, "198.51.100.1:9", 100)
	want := w.ended(t).sub(before)
	w.host.DeleteLink(t, "veth0")
	young := &wire{host: w.host, pod: ktest.NewNamespace(t)}
	young.pod.Sysctl(t, "net/ipv6/conf/default/disable_ipv6", "1")
	young.index = w.host.VethAt(t, w.index, "veth1", young.pod, "eth0")
	young.host.Address(t, "veth1", "203.0.113.1/24")
	young.pod.Address(t, "eth0", "203.0.113.2/24")
	await(t, "veth1 is attached", func() bool {
		all := l.Interfaces()
		return len(all) == 1 && all[0].Name == "veth1" && all[0].State != StateSettling && all[0].State != StateGone
	})
	sendUDP(t, young.pod, "203.0.113.1:9", 5)
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
