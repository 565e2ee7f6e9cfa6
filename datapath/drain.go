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
	// adrift is whether it is not known what each set had at its last drain.
	adrift [sets]bool
	// inserted is how many entries were made in the map of flows that was read last.
	inserted uint64
	records  []flows.Record
	// used is how many records were read last, before those of one flow were joined.
	used   int
	health []flows.HealthRecord
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
	now, totals := time.Now(), totalMapsOf(&objects.MeterMaps)
	return &drainer{
		sets: [sets]*set{
			{
				flows: layout.open(objects.Flows0, cpus), front: layout.front(objects.Front0), inserted: objects.Inserted0,
				totals: newTotals(totals[0], cpus),
			},
			{
				flows: layout.open(objects.Flows1, cpus), front: layout.front(objects.Front1), inserted: objects.Inserted1,
				totals: newTotals(totals[1], cpus),
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
	epoch, totals, err := d.read(number)
	if err != nil {
		return err
	}
	d.reading = totals
	if err := sink.Publish(epoch); err != nil {
		return fmt.Errorf("publish epoch %d: %w", number, err)
	}
	d.drained[frozen], d.adrift[frozen], d.missed = totals, false, 0
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

// read decodes an epoch's set, which is frozen, and checks the identity for each of its
// points. It also returns the set's cumulative totals.
func (d *drainer) read(epochNumber uint64) (*flows.Epoch, map[bpf.MeterTotalKey]bpf.MeterTotalCounters, error) {
	number := epochNumber & 1
	s := d.sets[number]
	totals, err := s.readTotals()
	if err != nil {
		return nil, nil, err
	}
	accounts := make(map[bpf.MeterTotalKey]*account, len(totals))
	for key, total := range totals {
		accounts[key] = &account{total: subTotals(total, d.drained[number][key])}
	}
	evicted, err := d.readFlows(s, epochNumber, accounts)
	if err != nil {
		return nil, nil, err
	}
	lossy := evicted || d.unsaved[number] || d.adrift[number]
	epoch := &flows.Epoch{
		Number: epochNumber,
		Start:  d.began[number], End: d.ended[number], Records: d.records, Health: d.health,
		ConservationError: d.missed, Unsaved: d.unsaved[number],
	}
	for key, a := range accounts {
		residue, failed := a.balance(lossy)
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

// readFlows reads a set's flows into the drainer's records and adds each entry to the
// account of its point. It reports whether entries were evicted, or are of a layout that
// cannot be read. It also reads the health of connections.
func (d *drainer) readFlows(s *set, number uint64, accounts map[bpf.MeterTotalKey]*account) (evicted bool, err error) {
	clock, err := readClock(d.clock)
	if err != nil {
		return false, err
	}
	var inFront int
	if d.records, inFront, err = s.readFlows(frozen{epoch: number, clock: clock}, spare(d.records, d.used)); err != nil {
		return false, err
	}
	if d.inserted, err = s.created(); err != nil {
		return false, err
	}
	if d.health, err = s.health.read(clock, spare(d.health, len(d.health))); err != nil {
		return false, err
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
	evicted = !s.readable() || uint64(len(d.records)-inFront) < d.inserted
	d.used = len(d.records)
	d.records = join(d.records, inFront)
	return evicted, nil
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

// writtenInsertions is how many entries the map of flows that is being written was given.
func (d *drainer) writtenInsertions() (uint64, error) {
	state, err := d.state.get()
	if err != nil {
		return 0, err
	}
	return d.sets[state.Epoch&1].created()
}

// release lets go of what the drainer alone holds.
func (d *drainer) release() error { return errors.Join(d.sets[0].release(), d.sets[1].release()) }

// createPoint prepares both sets for a point that is about to be attached.
func (d *drainer) createPoint(point uint32) error {
	return errors.Join(d.sets[0].createPoint(point), d.sets[1].createPoint(point))
}

// align is [totals.align] of both sets.
func (d *drainer) align() error { return errors.Join(d.sets[0].align(), d.sets[1].align()) }

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
