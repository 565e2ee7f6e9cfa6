// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// benchCapacity is a set's size, with room for what per-CPU free lists keep back.
const benchCapacity = 131_072

// BenchmarkDrain measures what a drain takes for one flow: to read and decode
// it, and to clear it. What the sink does with it is not in it, nor are the flip
// and the grace period, which take as long for one flow as for many.
func BenchmarkDrain(b *testing.B) {
	for _, entries := range []int{10_000, 60_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) { benchmarkDrain(b, entries) })
	}
}

func benchmarkDrain(b *testing.B, entries int) {
	d, objects := newTestDrainer(b, benchCapacity)
	best := drainTime{read: time.Hour}
	for b.Loop() {
		b.StopTimer()
		for port := range entries {
			send(b, objects, uint16(port))
		}
		if err := d.drain(&tally{}); err != nil { // freezes what was sent
			b.Fatalf("drain: %v", err)
		}
		b.StartTimer()
		// The fastest round counts: other work can only make one slower.
		if got := timeFrozen(b, d, entries); got.total() < best.total() {
			best = got
		}
	}
	perEntry := func(t time.Duration) float64 { return float64(t.Nanoseconds()) / float64(entries) }
	b.ReportMetric(0, "ns/op") // of all entries: leaves it out
	b.ReportMetric(perEntry(best.read), "read-ns/entry")
	b.ReportMetric(perEntry(best.clear), "clear-ns/entry")
	b.ReportMetric(perEntry(best.total()), "drain-ns/entry")
}

// drainTime is how long the parts of a drain took.
type drainTime struct{ read, clear time.Duration }

func (d drainTime) total() time.Duration { return d.read + d.clear }

// timeFrozen does with the frozen set what a drain does before it flips.
func timeFrozen(b *testing.B, d *drainer, entries int) (took drainTime) {
	b.Helper()
	state, err := d.state.get()
	if err != nil {
		b.Fatal(err)
	}
	frozen := state.Epoch - 1
	var got *flows.Epoch
	began := time.Now()
	err = d.publish(frozen, sinkFunc(func(epoch *flows.Epoch) error { got = epoch; return nil }))
	took.read = time.Since(began)
	if err != nil {
		b.Fatalf("publish: %v", err)
	}
	began = time.Now()
	missed, err := d.sets[frozen&1].clear()
	took.clear = time.Since(began)
	if err != nil {
		b.Fatalf("clear: %v", err)
	}
	if len(got.Records) != entries || got.ConservationError != 0 || missed != 0 {
		b.Fatalf("got %d records, conservation error %d, %d bytes missed, want %d records and no error",
			len(got.Records), got.ConservationError, missed, entries)
	}
	return took
}
