// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
)

// buckets of each CPU in tests that do not say how many.
const testBuckets = 64

// sizeFronts gives each possible CPU so many buckets.
func sizeFronts(tb testing.TB, spec *ebpf.CollectionSpec, buckets uint32) {
	tb.Helper()
	for _, name := range []string{MeterMapFront0, MeterMapFront1} {
		spec.Maps[name].MaxEntries = buckets * uint32(ebpf.MustPossibleCPU())
	}
	if err := spec.Variables[MeterVarFrontBuckets].Set(buckets); err != nil {
		tb.Fatalf("size fronts: %v", err)
	}
}

// slotsOf returns a copy of all slots of a front.
func slotsOf(tb testing.TB, front *ebpf.Map) []MeterFrontSlot {
	tb.Helper()
	memory, err := front.Memory()
	if err != nil {
		tb.Fatalf("map memory of %s: %v", front, err)
	}
	slots := make([]MeterFrontSlot, int(front.MaxEntries())*len(MeterFrontBucket{}.Slots))
	size := len(slots) * int(unsafe.Sizeof(MeterFrontSlot{}))
	if _, err := memory.ReadAt(unsafe.Slice((*byte)(unsafe.Pointer(&slots[0])), size), 0); err != nil {
		tb.Fatalf("read %s: %v", front, err)
	}
	return slots
}

// taken calls visit for each slot that an epoch's run has taken.
func taken(tb testing.TB, front *ebpf.Map, epoch uint64, visit func(i int, slot *MeterFrontSlot)) {
	tb.Helper()
	slots := slotsOf(tb, front)
	for i := range slots {
		if slots[i].Tag == uint32(epoch)|1 {
			visit(i, &slots[i])
		}
	}
}

// flowsIn sums what a set of an epoch holds, by flow, stamps left out.
func flowsIn(tb testing.TB, front, flows *ebpf.Map, epoch uint64) map[MeterFlowKey]MeterFlowCounters {
	tb.Helper()
	found := make(map[MeterFlowKey]MeterFlowCounters)
	add := func(key MeterFlowKey, counters MeterFlowCounters) {
		sum := found[key]
		sum.Bytes, sum.Packets = sum.Bytes+counters.Bytes, sum.Packets+counters.Packets
		found[key] = sum
	}
	taken(tb, front, epoch, func(_ int, slot *MeterFrontSlot) { add(slot.Key, slot.Counters) })
	var key MeterFlowKey
	var counters MeterFlowCounters
	iterator := flows.Iterate()
	for iterator.Next(&key, &counters) {
		add(key, counters)
	}
	if err := iterator.Err(); err != nil {
		tb.Fatalf("iterate flows: %v", err)
	}
	return found
}

// empty deletes what set 0 holds of epoch 0, and returns how many entries that were.
func empty(tb testing.TB, objects *MeterObjects) (entries int) {
	tb.Helper()
	taken(tb, objects.Front0, 0, func(i int, _ *MeterFrontSlot) {
		entries++
		index := uint32(i / len(MeterFrontBucket{}.Slots))
		if err := objects.Front0.Put(index, MeterFrontBucket{}); err != nil {
			tb.Fatalf("free slots: %v", err)
		}
	})
	var keys []MeterFlowKey
	var key MeterFlowKey
	var counters MeterFlowCounters
	iterator := objects.Flows0.Iterate()
	for iterator.Next(&key, &counters) {
		keys = append(keys, key)
	}
	if err := iterator.Err(); err != nil {
		tb.Fatalf("iterate flows: %v", err)
	}
	for _, key := range keys {
		if err := objects.Flows0.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			tb.Fatalf("delete flow: %v", err)
		}
	}
	return entries + len(keys)
}
