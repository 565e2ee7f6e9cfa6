// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

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
	grace *grace

	// drained are each set's totals at its last drain: totals are cumulative.
	drained [sets]map[bpf.MeterTotalKey]bpf.MeterTotalCounters
	// began is when each set was last made the written one.
	began, ended [sets]time.Time
	// missed is the bytes that the last clear found unread.
	missed  uint64
	records []flows.Record
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

func newDrainer(objects *bpf.MeterObjects, grace *grace, cpus int) *drainer {
	now := time.Now()
	return &drainer{
		sets: [sets]*set{
			newSet(objects.Flows0, objects.Totals0, objects.Inserted0, cpus),
			newSet(objects.Flows1, objects.Totals1, objects.Inserted1, cpus),
		},
		state: &epochState{variable: objects.Epoch},
		grace: grace,
		began: [sets]time.Time{now, now},
		ended: [sets]time.Time{now, now},
	}
}

// drain reads the set that the last drain froze, publishes and clears it, and
// lets the programs write it while the other one comes to rest. A packet is
// thereby published by the second drain after it, when the identity of a new
// pod has had time to arrive.
func (d *drainer) drain(sink Sink) (*flows.Epoch, error) {
	state, err := d.state.get()
	if err != nil {
		return nil, err
	}
	frozen := int((state.Epoch + 1) & 1)
	epoch, totals, err := d.read(frozen)
	if err != nil {
		return nil, err
	}
	epoch.Number = state.Epoch - 1
	if err := sink.Publish(epoch); err != nil {
		return nil, fmt.Errorf("publish epoch %d: %w", epoch.Number, err)
	}
	d.drained[frozen] = totals
	d.missed = 0
	// Never flip onto a set that is not verified empty: it would be counted twice.
	if d.missed, err = d.sets[frozen].clear(); err != nil {
		return nil, err
	}
	return epoch, d.flip(state)
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
	if err := d.grace.wait(); err != nil {
		return err
	}
	d.ended[old] = time.Now()
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
	clock := readClock()
	err = s.readFlows(
		func() {
			d.records = d.records[:0]
			for _, a := range accounts {
				a.placed, a.read = flows.Counters{}, 0
			}
		},
		func(key *bpf.MeterFlowKey, slots []bpf.MeterFlowCounters) {
			record := decode(key, slots, clock)
			point := bpf.MeterTotalKey{Point: key.Point, Direction: uint32(key.Direction)}
			a := accounts[point]
			if a == nil { // a flow without a point: the identity will name it
				a = &account{}
				accounts[point] = a
			}
			a.read++
			a.placed.Add(record.Counters)
			d.records = append(d.records, record)
		})
	if err != nil {
		return nil, nil, err
	}
	epoch := &flows.Epoch{
		Start: d.began[number], End: d.ended[number], Records: d.records,
		ConservationError: d.missed,
	}
	for key, a := range accounts {
		residue, failed := a.balance()
		epoch.ConservationError += failed
		epoch.Totals = append(epoch.Totals, flows.Total{
			Point:     flows.Point(key.Point),
			Direction: flows.Direction(key.Direction),
			Counters:  flows.Counters{Bytes: a.total.Bytes, Packets: a.total.Packets},
			Unplaced:  flows.Counters{Bytes: a.total.UnplacedBytes, Packets: a.total.UnplacedPackets},
			Residue:   residue,
		})
	}
	return epoch, totals, nil
}

// decode sums a flow over the CPUs that saw it.
func decode(key *bpf.MeterFlowKey, slots []bpf.MeterFlowCounters, clock clock) flows.Record {
	record := flows.Record{Key: decodeKey(key)}
	var first, last uint32
	for i := range slots {
		slot := &slots[i]
		if slot.Packets == 0 { // this CPU never saw it: its stamps mean nothing
			continue
		}
		if record.Packets == 0 || int32(slot.First-first) < 0 {
			first = slot.First
		}
		if record.Packets == 0 || int32(slot.Last-last) > 0 {
			last = slot.Last
		}
		record.Bytes += slot.Bytes
		record.Packets += slot.Packets
	}
	record.First, record.Last = clock.time(first), clock.time(last)
	return record
}

func decodeKey(key *bpf.MeterFlowKey) flows.Key {
	k := flows.Key{
		Point:     flows.Point(key.Point),
		Direction: flows.Direction(key.Direction),
		EtherType: hostOrder(key.Ethertype),
		Protocol:  key.Protocol,
	}
	if key.Source == key.Destination && key.Source == [16]byte{} {
		return k // no IP header was read: the parser fills in both addresses or none
	}
	k.Source = netip.AddrFrom16(key.Source).Unmap()
	k.Destination = netip.AddrFrom16(key.Destination).Unmap()
	k.SourcePort, k.DestinationPort = hostOrder(key.SourcePort), hostOrder(key.DestinationPort)
	return k
}

func hostOrder(v uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], v)
	return binary.BigEndian.Uint16(b[:])
}

// createPoint prepares both sets for a point that is about to be attached.
func (d *drainer) createPoint(point uint32) error {
	return errors.Join(d.sets[0].createPoint(point), d.sets[1].createPoint(point))
}

// deletePoint forgets a point whose last packet has been drained.
func (d *drainer) deletePoint(point uint32) error {
	for direction := range uint32(flows.Directions) {
		for i := range d.drained {
			delete(d.drained[i], bpf.MeterTotalKey{Point: point, Direction: direction})
		}
	}
	return errors.Join(d.sets[0].deletePoint(point), d.sets[1].deletePoint(point))
}
