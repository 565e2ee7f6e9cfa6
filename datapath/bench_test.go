// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// benchCapacity is a set's size, with room for what per-CPU free lists keep back.
const benchCapacity = 131_072

// BenchmarkDrain measures what a drain takes for one flow: to read and decode
// it, and to clear it; of flows in the map, of flows in a front as far as they have a slot, and of
// the first layout's, in turns. What the sink does with it is not in it, nor are the flip
// and the grace period, which take as long for one flow as for many.
func BenchmarkDrain(b *testing.B) {
	for _, entries := range []int{10_000, 60_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) { benchmarkDrain(b, entries) })
	}
}

func benchmarkDrain(b *testing.B, entries int) {
	names := []string{"map", "front", "first"}
	best := make(map[string]drainTime)
	drainers, all := make(map[string]*drainer), make(map[string]*objects)
	for name, buckets := range map[string]uint32{"map": 1, "front": mostBuckets} {
		drainers[name], all[name] = newDrainerOf(b, thisBuild(), benchCapacity, buckets)
	}
	drainers["first"], all["first"] = newDrainerOf(b, firstBuild(), benchCapacity, 1)
	for b.Loop() {
		for _, name := range names {
			d := drainers[name]
			for port := range entries {
				send(b, all[name], uint16(port))
			}
			if err := d.drain(&tally{}); err != nil { // freezes what was sent
				b.Fatalf("drain: %v", err)
			}
			// The fastest round counts: other work can only make one slower.
			if got := timeFrozen(b, d, entries); best[name] == (drainTime{}) || got.total() < best[name].total() {
				best[name] = got
			}
		}
	}
	b.ReportMetric(0, "ns/op") // of all entries: leaves it out
	for _, name := range names {
		perEntry := func(t time.Duration) float64 { return float64(t.Nanoseconds()) / float64(entries) }
		b.ReportMetric(perEntry(best[name].read), name+"-read-ns/entry")
		b.ReportMetric(perEntry(best[name].clear), name+"-clear-ns/entry")
	}
	b.ReportMetric(float64(best["map"].total())/float64(best["first"].total()), "map-ratio-to-first")
	b.ReportMetric(float64(best["front"].total())/float64(best["first"].total()), "front-ratio-to-first")
}

// BenchmarkEmptyFront measures what a drain takes for a slot of a front that nobody used: all of
// them are looked at, as many as there are of 128 possible CPUs by default.
func BenchmarkEmptyFront(b *testing.B) {
	ktest.Privileged(b)
	const cpus = 128
	spec, err := thisBuild().sizedSpec(1, frontBuckets(DefaultMapMemory, cpus), cpus)
	if err != nil {
		b.Fatal(err)
	}
	m, err := ebpf.NewMap(spec.Maps[bpf.MeterMapFront0])
	if err != nil {
		b.Fatalf("make a front: %v", err)
	}
	defer m.Close()
	front := newFront(m, decode)
	defer front.release()
	for b.Loop() {
		if records, err := front.read(frozen{epoch: 2}, nil); err != nil || len(records) != 0 {
			b.Fatalf("got %d records, %v, want none", len(records), err)
		}
	}
	slots := float64(frontWays) * float64(m.MaxEntries())
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/slots, "ns/slot")
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
