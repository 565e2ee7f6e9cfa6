// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/flows"
)

// frozen is an epoch whose set no program writes any more, and what the time is on the clock
// of its stamps.
type frozen struct {
	epoch uint64
	clock clock
}

// flowMap is one map of flows. It is read and cleared while it is frozen: no program writes it.
type flowMap interface {
	// read appends all flows of an epoch to records, one for each entry.
	read(from frozen, records []flows.Record) ([]flows.Record, error)
	// clear deletes the flows that were read and returns the bytes of those that
	// are left then: flows that the read missed, which must not be.
	clear() (missed uint64, err error)
	// release lets go of what it has beside the map itself.
	release() error
}

// flowTable is a map of flows whose layout this build knows.
type flowTable[K comparable, V any] struct {
	restingMap[K, V]
	decode func(key *K, slots []V, clock clock) flows.Record
}

func newFlowTable[K comparable, V any](m *ebpf.Map, cpus int, decode func(*K, []V, clock) flows.Record) *flowTable[K, V] {
	return &flowTable[K, V]{restingMap: newRestingMap[K, V](m, cpus), decode: decode}
}

func (f *flowTable[K, V]) read(from frozen, records []flows.Record) ([]flows.Record, error) {
	before := len(records)
	err := f.restingMap.read(
		func() { records = records[:before] },
		func(key *K, slots []V) { records = append(records, f.decode(key, slots, from.clock)) })
	return records, err
}

func (f *flowTable[K, V]) clear() (missed uint64, err error) {
	err = f.restingMap.clear(func(key *K, slots []V) { missed += f.decode(key, slots, clock{}).Bytes })
	return missed, err
}

func (f *flowTable[K, V]) release() error { return nil }
