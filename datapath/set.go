// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
)

// set is one of the two groups of maps that programs write in turn. All methods
// but those of the embedded totals want it frozen: no program writes it.
type set struct {
	*totals
	flows    *ebpf.Map
	inserted *ebpf.Variable
	cpus     int

	flowReader *batchReader[bpf.MeterFlowKey, bpf.MeterFlowCounters]
	// keys are those of the flows that were read and are to be cleared; buffer
	// is the memory they lie in.
	keys, buffer []bpf.MeterFlowKey
}

func newSet(flows *ebpf.Map, totals *totals, inserted *ebpf.Variable, cpus int) *set {
	return &set{
		totals: totals, flows: flows, inserted: inserted, cpus: cpus,
		flowReader: newBatchReader[bpf.MeterFlowKey, bpf.MeterFlowCounters](flows, cpus),
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
