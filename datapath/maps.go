// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/podmeter/podmeter/bpf"
)

const (
	// entryOverhead is what the kernel adds to the values of an LRU_PERCPU_HASH
	// entry, in bytes: node, 44-byte key and allocator, as measured.
	entryOverhead = 120
	// entriesPerCPU is the least that a set holds for each possible CPU: an LRU
	// hands out free entries to CPUs 128 at a time.
	entriesPerCPU = 256

	sets = 2
)

// Capacity returns how many flows each set holds when both together may take
// memory bytes, on a machine with cpus possible CPUs.
func Capacity(memory uint64, cpus int) uint32 {
	entry := entryOverhead + cpus*int(unsafe.Sizeof(bpf.MeterFlowCounters{}))
	return uint32(max(memory/sets/uint64(entry), uint64(entriesPerCPU*cpus)))
}

// loadObjects sizes the flow maps and loads the programs and maps, with a fresh
// set id.
func loadObjects(capacity uint32) (*bpf.MeterObjects, error) {
	spec, err := bpf.LoadMeter()
	if err != nil {
		return nil, fmt.Errorf("read BPF object: %w", err)
	}
	for _, name := range []string{bpf.MeterMapFlows0, bpf.MeterMapFlows1} {
		spec.Maps[name].MaxEntries = capacity
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("make set id: %w", err)
	}
	state := bpf.MeterEpochState{SetId: binary.NativeEndian.Uint64(id[:])}
	if err := spec.Variables[bpf.MeterVarEpoch].Set(state); err != nil {
		return nil, fmt.Errorf("set first epoch: %w", err)
	}
	var objects bpf.MeterObjects
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		return nil, fmt.Errorf("load BPF programs and maps: %w", err)
	}
	return &objects, nil
}
