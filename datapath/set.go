// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
)

// set is one of the two groups of maps that programs write in turn. All methods
// but createPoint and deletePoint want it frozen: no program writes it.
type set struct {
	flows, totals *ebpf.Map
	inserted      *ebpf.Variable
	cpus          int

	flowReader  *batchReader[bpf.MeterFlowKey, bpf.MeterFlowCounters]
	totalReader *batchReader[bpf.MeterTotalKey, bpf.MeterTotalCounters]
	// keys are those of the flows that were read and are to be cleared; buffer
	// is the memory they lie in.
	keys, buffer []bpf.MeterFlowKey
}

func newSet(flows, totals *ebpf.Map, inserted *ebpf.Variable, cpus int) *set {
	return &set{
		flows: flows, totals: totals, inserted: inserted, cpus: cpus,
		flowReader:  newBatchReader[bpf.MeterFlowKey, bpf.MeterFlowCounters](flows, cpus),
		totalReader: newBatchReader[bpf.MeterTotalKey, bpf.MeterTotalCounters](totals, cpus),
	}
}

// readFlows calls visit for every flow with its slot of each CPU. begin is
// called before the first, and again if the pass had to start anew.
func (s *set) readFlows(begin func(), visit func(key *bpf.MeterFlowKey, slots []bpf.MeterFlowCounters)) error {
	return s.flowReader.read(
		func() { s.keys = s.buffer[:0]; begin() },
		func(keys []bpf.MeterFlowKey, slots []bpf.MeterFlowCounters) {
			s.keys = append(s.keys, keys...)
			s.buffer = s.keys
			for i := range keys {
				visit(&keys[i], slots[i*s.cpus:(i+1)*s.cpus])
			}
		})
}

// readTotals returns the cumulative totals of every point, summed over CPUs.
// It may be called while programs write.
func (s *set) readTotals() (map[bpf.MeterTotalKey]bpf.MeterTotalCounters, error) {
	var totals map[bpf.MeterTotalKey]bpf.MeterTotalCounters
	err := s.totalReader.read(
		func() { totals = make(map[bpf.MeterTotalKey]bpf.MeterTotalCounters) },
		func(keys []bpf.MeterTotalKey, slots []bpf.MeterTotalCounters) {
			for i, key := range keys {
				totals[key] = sumTotals(slots[i*s.cpus : (i+1)*s.cpus])
			}
		})
	return totals, err
}

// readTotal returns the cumulative totals of one point, summed over CPUs, the
// zero value if it has none. It may be called while programs write.
func (s *set) readTotal(key bpf.MeterTotalKey) (bpf.MeterTotalCounters, error) {
	slots := make([]bpf.MeterTotalCounters, s.cpus)
	err := s.totals.Lookup(key, slots)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return bpf.MeterTotalCounters{}, nil
	}
	if err != nil {
		return bpf.MeterTotalCounters{}, fmt.Errorf("read totals of point %d: %w", key.Point, err)
	}
	return sumTotals(slots), nil
}

func sumTotals(slots []bpf.MeterTotalCounters) bpf.MeterTotalCounters {
	var sum bpf.MeterTotalCounters
	for i := range slots {
		sum.Bytes += slots[i].Bytes
		sum.Packets += slots[i].Packets
		sum.Inserted += slots[i].Inserted
		sum.UnplacedBytes += slots[i].UnplacedBytes
		sum.UnplacedPackets += slots[i].UnplacedPackets
	}
	return sum
}

// clear deletes the flows that were read and returns the bytes of those that
// are left then: flows that the read missed, which must not be.
func (s *set) clear() (missed uint64, err error) {
	chunk := len(s.flowReader.keys)
	for len(s.keys) > 0 {
		keys := s.keys[:min(chunk, len(s.keys))]
		if err := s.delete(keys); err != nil {
			return 0, fmt.Errorf("clear map %s: %w", s.flows, err)
		}
		s.keys = s.keys[len(keys):]
	}
	if missed, err = s.clearMissed(); err != nil {
		return missed, err
	}
	if err := s.inserted.Set(uint64(0)); err != nil {
		return missed, fmt.Errorf("reset insertions: %w", err)
	}
	return missed, nil
}

// delete removes keys at once, or one by one where a failed attempt before has
// left a part of them.
func (s *set) delete(keys []bpf.MeterFlowKey) error {
	if _, err := s.flows.BatchDelete(keys, nil); err == nil {
		return nil
	}
	for _, key := range keys {
		if err := s.flows.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// clearMissed empties the set of what clear left, until it is verified empty.
func (s *set) clearMissed() (uint64, error) {
	var missed uint64
	var key bpf.MeterFlowKey
	slots := make([]bpf.MeterFlowCounters, s.cpus)
	for {
		err := s.flows.NextKey(nil, &key)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return missed, nil
		}
		if err != nil {
			return missed, fmt.Errorf("verify that map %s is empty: %w", s.flows, err)
		}
		if err := s.flows.Lookup(key, slots); err != nil {
			return missed, fmt.Errorf("read missed flow: %w", err)
		}
		for i := range slots {
			missed += slots[i].Bytes
		}
		if err := s.flows.Delete(key); err != nil {
			return missed, fmt.Errorf("delete missed flow: %w", err)
		}
	}
}

// createPoint makes the totals entries that a program needs to count at all.
// It comes before the attachment, while nobody can write them.
func (s *set) createPoint(point uint32) error {
	slots := make([]bpf.MeterTotalCounters, s.cpus)
	for direction := range uint32(2) {
		key := bpf.MeterTotalKey{Point: point, Direction: direction}
		err := s.totals.Update(key, slots, ebpf.UpdateNoExist)
		if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("create totals of point %d: %w", point, err)
		}
	}
	return nil
}

// deletePoint removes a point's totals, after its interface has gone, a grace
// period and a drain of both sets.
func (s *set) deletePoint(point uint32) error {
	for direction := range uint32(2) {
		err := s.totals.Delete(bpf.MeterTotalKey{Point: point, Direction: direction})
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete totals of point %d: %w", point, err)
		}
	}
	return nil
}
