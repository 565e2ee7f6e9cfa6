// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
)

// totals are a set's cumulative counters by point and direction.
type totals struct {
	counters *placed[bpf.MeterTotalPlace, bpf.MeterTotalCounters]
	// more are what later builds add to them. Nothing is written there as yet.
	more *placed[bpf.MeterMorePlace, bpf.MeterMoreCounters]
}

// totalMaps are a set's maps of totals.
type totalMaps struct{ places, displaced, more, moreDisplaced *ebpf.Map }

// totalMapsOf returns those of both sets.
func totalMapsOf(o *bpf.MeterMaps) [sets]totalMaps {
	return [sets]totalMaps{
		{o.Totals0, o.Displaced0, o.More0, o.MoreDisplaced0},
		{o.Totals1, o.Displaced1, o.More1, o.MoreDisplaced1},
	}
}

func newTotals(m totalMaps, cpus int) *totals {
	return &totals{
		counters: newPlaced(m.places, m.displaced, cpus,
			func(p *bpf.MeterTotalPlace) (*bpf.MeterTotalKey, *bpf.MeterTotalCounters) {
				return &p.Owner, &p.Counters
			}, addTotals),
		more: newPlaced(m.more, m.moreDisplaced, 1,
			func(p *bpf.MeterMorePlace) (*bpf.MeterTotalKey, *bpf.MeterMoreCounters) { return &p.Owner, &p.Counters }, addMore),
	}
}

// readTotals returns the cumulative totals of every point, summed over CPUs.
func (t *totals) readTotals() (map[bpf.MeterTotalKey]bpf.MeterTotalCounters, error) {
	return t.counters.read()
}

// readTotal returns the cumulative totals of one point and direction, summed
// over CPUs, the zero value if it has none.
func (t *totals) readTotal(key bpf.MeterTotalKey) (bpf.MeterTotalCounters, error) {
	total, _, err := t.counters.find(key)
	return total, err
}

// createPoint makes the totals that a program needs to count at all. It comes
// before the attachment, while nobody can write them.
func (t *totals) createPoint(point uint32) error {
	return eachDirection(point, "create", t.counters.create, t.more.create)
}

// deletePoint removes a point's totals, after its interface has gone, a grace
// period and a drain of both sets.
func (t *totals) deletePoint(point uint32) error {
	return eachDirection(point, "delete", t.more.delete, t.counters.delete)
}

func eachDirection(point uint32, what string, do ...func(bpf.MeterTotalKey) error) error {
	for direction := range uint32(flows.Directions) {
		for _, each := range do {
			if err := each(bpf.MeterTotalKey{Point: point, Direction: direction}); err != nil {
				return fmt.Errorf("%s totals of point %d: %w", what, point, err)
			}
		}
	}
	return nil
}

// align gives the points that a build without [laterMaps] has made what they lack there, and frees
// what it has left of others.
func (t *totals) align() error {
	there, err := t.readTotals()
	if err == nil {
		err = t.more.align(there)
	}
	if err != nil {
		return fmt.Errorf("align totals: %w", err)
	}
	return nil
}

func addTotals(sum, slot *bpf.MeterTotalCounters) {
	sum.Bytes += slot.Bytes
	sum.Packets += slot.Packets
	sum.Inserted += slot.Inserted
	sum.UnplacedBytes += slot.UnplacedBytes
	sum.UnplacedPackets += slot.UnplacedPackets
}

func addMore(sum, slot *bpf.MeterMoreCounters) {
	sum.Bytes += slot.Bytes
	sum.Packets += slot.Packets
}
