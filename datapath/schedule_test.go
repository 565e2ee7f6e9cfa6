// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// The first drain does not wait for its interval: an agent can answer as soon as it has
// attached. What it counted until then rests all the same, until the next one.
func TestFirstDrainComesWithTheAttachments(t *testing.T) {
	ktest.Privileged(t)
	w := newWire(t)
	m := startMeter(t, w.host, func(o *Options) { o.DrainInterval = time.Hour })
	m.awaitFirstDrain(t)
	if state := m.state("veth0"); state == "" {
		t.Error("got a drain before the attachment, want it after")
	}
	w.pod.Send(t, "198.51.100.1:9", 100, 5)
	if totals, _ := m.book.of("veth0"); totals[flows.Transmit].Bytes != 0 {
		t.Errorf("got %d bytes published, want none: they have not rested", totals[flows.Transmit].Bytes)
	}
	if got := m.LastDrain(); got.Count != 1 {
		t.Errorf("got %d drains, want one in an hour", got.Count)
	}
	for range sets {
		if err := m.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if totals, _ := m.book.of("veth0"); totals[flows.Transmit].Packets < 5 {
		t.Errorf("got %d packets after two more drains, want the 5 that were sent", totals[flows.Transmit].Packets)
	}
}

// Maps of an earlier meter are drained at the start, before the first listing, and not
// again with it: what the first drain froze has not rested then.
func TestAdoptedMapsAreDrainedOnce(t *testing.T) {
	ktest.Privileged(t)
	w := newWire(t)
	first := startMeter(t, w.host, func(o *Options) { o.DrainInterval = time.Hour })
	first.awaitFirstDrain(t)
	first.stop()
	next, err := New(t.Context(), first.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-next.early:
	default:
		t.Error("got no drain asked for at the start, want one")
	}
	next.links.list()
	if len(next.early) > 0 {
		t.Error("got another drain asked for with the first listing, want none")
	}
}
