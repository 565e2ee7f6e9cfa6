// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
)

// Sink takes what a drain read. It is called by one goroutine at a time.
type Sink interface {
	// Publish accounts for an epoch. When it returns an error the epoch stays
	// in its set and is offered again by the next drain.
	Publish(*flows.Epoch) error
}

// drainer reads, publishes and clears the sets in turn. The order of a drain is
// what makes it exact: see drain.
type drainer struct {
	sets  [sets]*set
	state *epochState
	clock *ebpf.Program // see readClock
	grace *grace

	// drained are each set's totals at its last drain: totals are cumulative.
	drained [sets]map[bpf.MeterTotalKey]bpf.MeterTotalCounters
	// reading are the totals of the epoch that is being published.
	reading map[bpf.MeterTotalKey]bpf.MeterTotalCounters
	// began and ended bound the time in which each set was last written.
	began, ended [sets]time.Time
	// missed is the bytes that the last clear found unread.
	missed uint64
	// published is whether the frozen set has been published and is not cleared
	// yet, unquiet whether programs may still write it: where a drain stopped.
	published, unquiet bool
	// unsaved is whether epochs of each set were published that its drained totals lack.
	unsaved [sets]bool
	// inserted is how many flows the set that was read last had created.
	inserted uint64
	records  []flows.Record
	health   []flows.HealthRecord
}

// epochState is the kernel side's epoch, which the agent alone writes.
type epochState struct {
	variable interface {
		Get(any) error
		Set(any) error
	}
}

func (e *epochState) get() (bpf.MeterEpochState, error) {
	var state bpf.MeterEpochState
	if err := e.variable.Get(&state); err != nil {
		return state, fmt.Errorf("read epoch: %w", err)
	}
	return state, nil
}

// newDrainer returns a drainer of maps whose flows have the layout.
func newDrainer(objects *bpf.MeterObjects, layout layout, grace *grace, cpus int) *drainer {
	now := time.Now()
	return &drainer{
		sets: [sets]*set{
			{
				flows: layout.open(objects.Flows0, cpus), inserted: objects.Inserted0,
				totals: newTotals(objects.Totals0, objects.Displaced0, cpus),
			},
			{
				flows: layout.open(objects.Flows1, cpus), inserted: objects.Inserted1,
				totals: newTotals(objects.Totals1, objects.Displaced1, cpus),
			},
		},
		state: &epochState{variable: objects.Epoch},
		clock: objects.PodmeterClock,
		grace: grace,
		began: [sets]time.Time{now, now},
		ended: [sets]time.Time{now, now},
	}
}

// drain reads the set that the last drain froze, publishes and clears it, and
// lets the programs write it while the other one comes to rest. A packet is
// thereby published by the second drain after it, when the identity of a new
// pod has had time to arrive. A drain that failed is taken up where it stopped.
func (d *drainer) drain(sink Sink) error {
	state, err := d.state.get()
	if err != nil {
		return err
	}
	if d.unquiet {
		if err := d.rest(int((state.Epoch + 1) & 1)); err != nil {
			return err
		}
	}
	if !d.published {
		if err := d.publish(state.Epoch-1, sink); err != nil {
			return err
		}
		d.published = true
	}
	// Never flip onto a set that is not verified empty: it would be counted twice.
	missed, err := d.sets[(state.Epoch+1)&1].clear()
	d.missed += missed
	if err != nil {
		return err
	}
	return d.flip(state)
}

// publish reads the frozen set and offers it to the sink.
func (d *drainer) publish(number uint64, sink Sink) error {
	frozen := int(number & 1)
	epoch, totals, err := d.read(frozen)
	if err != nil {
		return err
	}
	epoch.Number, d.reading = number, totals
	if err := sink.Publish(epoch); err != nil {
		return fmt.Errorf("publish epoch %d: %w", number, err)
	}
	d.drained[frozen], d.missed = totals, 0
	return nil
}

// flip makes the programs write the other set, and waits until none writes the
// old one any more.
func (d *drainer) flip(state bpf.MeterEpochState) error {
	old := int(state.Epoch & 1)
	state.Epoch++
	d.began[state.Epoch&1] = time.Now()
	if err := d.state.variable.Set(state); err != nil {
		return fmt.Errorf("flip epoch: %w", err)
	}
	d.published, d.unquiet = false, true
	return d.rest(old)
}

// rest waits until no program writes the set.
func (d *drainer) rest(number int) error {
	if err := d.grace.wait(); err != nil {
		return err
	}
	d.unquiet, d.ended[number] = false, time.Now()
	return nil
}

// read decodes a frozen set and checks the identity for each of its points. It
// also returns the set's cumulative totals.
func (d *drainer) read(number int) (*flows.Epoch, map[bpf.MeterTotalKey]bpf.MeterTotalCounters, error) {
	s := d.sets[number]
	totals, err := s.readTotals()
	if err != nil {
		return nil, nil, err
	}
	accounts := make(map[bpf.MeterTotalKey]*account, len(totals))
	for key, total := range totals {
		accounts[key] = &account{total: subTotals(total, d.drained[number][key])}
	}
	if err := d.readFlows(s, accounts); err != nil {
		return nil, nil, err
	}
	epoch := &flows.Epoch{
		Start: d.began[number], End: d.ended[number], Records: d.records, Health: d.health,
		ConservationError: d.missed, Unsaved: d.unsaved[number],
	}
	d.inserted = 0
	for key, a := range accounts {
		d.inserted += a.total.Inserted
		residue, failed := a.balance()
		epoch.ConservationError += failed
		epoch.Totals = append(epoch.Totals, flows.Total{
			Point:     flows.Point(key.Point),
			Direction: flows.Direction(key.Direction),
			Counters:  countersOf(a.total),
			Unplaced:  flows.Counters{Bytes: a.total.UnplacedBytes, Packets: a.total.UnplacedPackets},
			Residue:   residue,
		})
	}
	return epoch, totals, nil
}

// readFlows reads a set's flows into the drainer's records and adds each to the
// account of its point. It also reads the health of connections.
func (d *drainer) readFlows(s *set, accounts map[bpf.MeterTotalKey]*account) error {
	clock, err := readClock(d.clock)
	if err != nil {
		return err
	}
	if d.records, err = s.readFlows(clock, d.records[:0]); err != nil {
		return err
	}
	if d.health, err = s.health.read(clock, d.health[:0]); err != nil {
		return err
	}
	for i := range d.records {
		record := &d.records[i]
		point := bpf.MeterTotalKey{Point: uint32(record.Key.Point), Direction: uint32(record.Key.Direction)}
		a := accounts[point]
		if a == nil { // a flow without a point: the identity will name it
			a = &account{}
			accounts[point] = a
		}
		a.read++
		a.placed.Add(record.Counters)
	}
	return nil
}

// counted returns what both sets hold of a point since it was created. It may
// be called while programs write.
func (d *drainer) counted(point uint32) (byDirection, error) {
	var sum byDirection
	for direction := range uint32(flows.Directions) {
		for _, s := range d.sets {
			total, err := s.readTotal(bpf.MeterTotalKey{Point: point, Direction: direction})
			if err != nil {
				return sum, err
			}
			sum[direction].Add(countersOf(total))
		}
	}
	return sum, nil
}

// drainedOf returns what both sets had of a point when they were last drained.
func (d *drainer) drainedOf(point uint32) (sum byDirection) {
	for _, totals := range d.drained {
		for direction := range uint32(flows.Directions) {
			sum[direction].Add(countersOf(totals[bpf.MeterTotalKey{Point: point, Direction: direction}]))
		}
	}
	return sum
}

// writtenInsertions is how many flows the set that is being written has created.
func (d *drainer) writtenInsertions() (uint64, error) {
	state, err := d.state.get()
	if err != nil {
		return 0, err
	}
	var inserted uint64
	if err := d.sets[state.Epoch&1].inserted.Get(&inserted); err != nil {
		return 0, fmt.Errorf("read insertions: %w", err)
	}
	return inserted, nil
}

// release lets go of what the drainer alone holds.
func (d *drainer) release() error { return errors.Join(d.sets[0].release(), d.sets[1].release()) }

// createPoint prepares both sets for a point that is about to be attached.
func (d *drainer) createPoint(point uint32) error {
	return errors.Join(d.sets[0].createPoint(point), d.sets[1].createPoint(point))
}

// deletePoint forgets a point whose last packet has been drained. Its baseline
// goes last: without it all that it counted would be new.
func (d *drainer) deletePoint(point uint32) error {
	err := errors.Join(d.sets[0].deletePoint(point), d.sets[1].deletePoint(point))
	if err != nil {
		return err
	}
	for direction := range uint32(flows.Directions) {
		for i := range d.drained {
			delete(d.drained[i], bpf.MeterTotalKey{Point: point, Direction: direction})
		}
	}
	return nil
}
