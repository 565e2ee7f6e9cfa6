// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
)

const (
	// frontWays is FRONT_WAYS of bpf/front.h.
	frontWays   = len(bpf.MeterFrontBucket{}.Slots)
	bucketBytes = uint64(unsafe.Sizeof(bpf.MeterFrontBucket{}))
	// mostBuckets are those that a CPU has in front of either set, fewer where CPUs are
	// many: all fronts together take a frontShare-th of the memory at most, as long as
	// that leaves each CPU the leastBuckets.
	mostBuckets, leastBuckets = 8192, 64
	frontShare                = 4
)

// frontBuckets returns how many buckets each possible CPU has in front of either set, when
// all maps of flows together may take memory bytes.
func frontBuckets(memory uint64, cpus int) uint32 {
	return uint32(min(max(memory/frontShare/frontBytes(1, cpus), leastBuckets), mostBuckets))
}

// frontBytes is the memory of the fronts of both sets.
func frontBytes(buckets uint32, cpus int) uint64 {
	return sets * uint64(cpus) * uint64(buckets) * bucketBytes
}

// frontSlot is struct front_slot of a layout.
type frontSlot[K comparable, V any] struct {
	Key      K
	Tag      uint32
	Counters V
}

// front is what each CPU has counted by itself, before the map of flows: memory that is
// shared with the kernel and read without a copy. A slot is of one epoch, so that there is
// nothing to clear.
type front[K comparable, V any] struct {
	m      *ebpf.Map
	decode func(key *K, slots []V, clock clock) flows.Record
	memory []byte
}

func newFront[K comparable, V any](m *ebpf.Map, decode func(*K, []V, clock) flows.Record) flowMap {
	if uintptr(m.ValueSize()) != uintptr(frontWays)*unsafe.Sizeof(frontSlot[K, V]{}) || m.Flags()&unix.BPF_F_MMAPABLE == 0 {
		return unreadable{}
	}
	return &front[K, V]{m: m, decode: decode}
}

func (f *front[K, V]) read(from frozen, records []flows.Record) ([]flows.Record, error) {
	slots, err := f.slots()
	if err != nil {
		return records, err
	}
	tag := frontTag(from.epoch)
	for i := range slots {
		if s := &slots[i]; s.Tag == tag {
			records = append(records, f.decode(&s.Key, unsafe.Slice(&s.Counters, 1), from.clock))
		}
	}
	return records, nil
}

// frontTag is FRONT_TAG of bpf/flow.h.
func frontTag(epoch uint64) uint32 { return uint32(epoch) | 1 }

func (f *front[K, V]) slots() ([]frontSlot[K, V], error) {
	n := frontWays * int(f.m.MaxEntries())
	if f.memory == nil {
		page := os.Getpagesize()
		size := (n*int(unsafe.Sizeof(frontSlot[K, V]{})) + page - 1) &^ (page - 1)
		memory, err := unix.Mmap(f.m.FD(), 0, size, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("map memory of %s: %w", f.m, err)
		}
		f.memory = memory
	}
	return unsafe.Slice((*frontSlot[K, V])(unsafe.Pointer(&f.memory[0])), n), nil
}

func (f *front[K, V]) clear() (missed uint64, err error) { return 0, nil }

func (f *front[K, V]) release() error {
	if f.memory == nil {
		return nil
	}
	memory := f.memory
	f.memory = nil
	if err := unix.Munmap(memory); err != nil {
		return fmt.Errorf("unmap memory of a front: %w", err)
	}
	return nil
}

// join makes one record of those that are of one flow: the first n are from fronts, where
// several CPUs may have it, and the others are from maps.
func join(records []flows.Record, n int) []flows.Record {
	if n == 0 {
		return records
	}
	at := make(map[flows.Key]int, n)
	kept := records[:0]
	for i, r := range records {
		if k, known := at[r.Key]; known {
			merge(&kept[k], &r)
			continue
		}
		if i < n {
			at[r.Key] = len(kept)
		}
		kept = append(kept, r)
	}
	return kept
}

func merge(to, from *flows.Record) {
	to.Add(from.Counters)
	if from.First.Before(to.First) {
		to.First = from.First
	}
	if from.Last.After(to.Last) {
		to.Last = from.Last
	}
}
