// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/flows"
)

// flowMap is one map of flows. Both methods want it frozen: no program writes it.
type flowMap interface {
	// read appends all flows to records.
	read(clock clock, records []flows.Record) ([]flows.Record, error)
	// clear deletes the flows that were read and returns the bytes of those that
	// are left then: flows that the read missed, which must not be.
	clear() (missed uint64, err error)
}

// flowTable is a map of flows whose layout this build knows.
type flowTable[K comparable, V any] struct {
	m      *ebpf.Map
	cpus   int
	decode func(key *K, slots []V, clock clock) flows.Record

	reader *batchReader[K, V]
	// keys are those of the flows that were read and are to be cleared; buffer
	// is the memory they lie in.
	keys, buffer []K
}

func newFlowTable[K comparable, V any](m *ebpf.Map, cpus int, decode func(*K, []V, clock) flows.Record) *flowTable[K, V] {
	return &flowTable[K, V]{m: m, cpus: cpus, decode: decode, reader: newBatchReader[K, V](m, cpus)}
}

func (f *flowTable[K, V]) read(clock clock, records []flows.Record) ([]flows.Record, error) {
	before := len(records)
	err := f.reader.read(
		func() { f.keys, records = f.buffer[:0], records[:before] },
		func(keys []K, slots []V) {
			f.keys = append(f.keys, keys...)
			f.buffer = f.keys
			for i := range keys {
				records = append(records, f.decode(&keys[i], slots[i*f.cpus:(i+1)*f.cpus], clock))
			}
		})
	return records, err
}

func (f *flowTable[K, V]) clear() (missed uint64, err error) {
	chunk := len(f.reader.keys)
	for len(f.keys) > 0 {
		keys := f.keys[:min(chunk, len(f.keys))]
		if err := f.delete(keys); err != nil {
			return 0, fmt.Errorf("clear map %s: %w", f.m, err)
		}
		f.keys = f.keys[len(keys):]
	}
	return f.clearMissed()
}

// delete removes keys at once, or one by one where a failed attempt before has
// left a part of them.
func (f *flowTable[K, V]) delete(keys []K) error {
	if _, err := f.m.BatchDelete(keys, nil); err == nil {
		return nil
	}
	for _, key := range keys {
		if err := f.m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// clearMissed empties the map of what clear left, until it is verified empty.
func (f *flowTable[K, V]) clearMissed() (missed uint64, err error) {
	var key K
	slots := make([]V, f.cpus)
	for {
		err := f.m.NextKey(nil, &key)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return missed, nil
		}
		if err != nil {
			return missed, fmt.Errorf("verify that map %s is empty: %w", f.m, err)
		}
		if err := f.m.Lookup(key, slots); err != nil {
			return missed, fmt.Errorf("read missed flow: %w", err)
		}
		missed += f.decode(&key, slots, clock{}).Bytes
		if err := f.m.Delete(key); err != nil {
			return missed, fmt.Errorf("delete missed flow: %w", err)
		}
	}
}
