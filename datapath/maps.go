// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
)

const (
	// entryBytes is the memory of one flow in an LRU_HASH: node, 44-byte key and
	// 40-byte value, as measured.
	entryBytes = 152
	// entriesPerCPU is the least that a set holds for each possible CPU: an LRU
	// hands out free entries to CPUs 128 at a time.
	entriesPerCPU = 256

	// maxEntries is the most that a hash map of the kernel takes: of its buckets, a
	// power of two of 16 bytes each, it wants to count the bytes in 32 bits
	// (htab_map_alloc in kernel/bpf/hashtab.c).
	maxEntries = 1 << 27

	sets = 2

	// DefaultMapMemory is the memory of both sets in bytes, fronts included, where none
	// is asked for.
	DefaultMapMemory = 64 << 20
)

// flowMaps are the maps of flows by set, and frontMaps those in front of them, as the
// collection names them.
var (
	flowMaps  = [sets]string{bpf.MeterMapFlows0, bpf.MeterMapFlows1}
	frontMaps = [sets]string{bpf.MeterMapFront0, bpf.MeterMapFront1}
)

// The data sections, which are maps to the kernel.
const (
	mapEpoch    = ".data.epoch"
	mapPressure = ".data.pressure"
)

// Capacity returns how many flows each set holds, beside those in fronts, when both together
// may take memory bytes, on a machine with cpus possible CPUs.
func Capacity(memory uint64, cpus int) uint32 {
	fronts := frontBytes(frontBuckets(memory, cpus), cpus)
	return uint32(max((memory-min(fronts, memory))/sets/entryBytes, uint64(entriesPerCPU*cpus)))
}

// linkedEntries and linkedBuckets take the place of what follows from the memory in a build to
// which the linker gives them: all of podmeter then runs with maps that hold next to nothing,
// as hack/stress.sh lets it.
var linkedEntries, linkedBuckets string

// linked returns a number that the linker gave, else 0.
func linked(text string) uint32 {
	n, _ := strconv.ParseUint(text, 10, 32)
	return uint32(n)
}

// sizes returns the entries of a map of flows and the buckets that each possible CPU has in
// front of it, when both sets together may take memory bytes.
func sizes(memory uint64, cpus int) (entries, buckets uint32) {
	return cmp.Or(linked(linkedEntries), Capacity(memory, cpus)), cmp.Or(linked(linkedBuckets), frontBuckets(memory, cpus))
}

// memoryOf returns the memory in bytes whose sets hold so many flows each, on a machine with
// cpus possible CPUs.
func memoryOf(entries uint64, cpus int) uint64 {
	maps := sets * entries * entryBytes
	most := maps + maps/(frontShare-1) + frontBytes(leastBuckets, cpus)
	return min(most, maps+frontBytes(mostBuckets, cpus))
}

// MaxMapMemory returns the most memory in bytes that both sets together can take, on a
// machine with cpus possible CPUs.
func MaxMapMemory(cpus int) uint64 { return memoryOf(maxEntries, cpus) }

// objects are the loaded programs and maps.
type objects struct {
	bpf.MeterObjects
	// data are the maps behind the data sections, by name.
	data map[string]*ebpf.Map
}

// loadObjects loads the programs and the maps, but those that are given by name,
// of which it becomes the owner. A nil map of them stands for fresh maps.
func loadObjects(spec *ebpf.CollectionSpec, adopted map[string]*ebpf.Map) (*objects, error) {
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: adopted})
	if err = errors.Join(err, closeAll(adopted)); err != nil { // the collection has its own of them
		return nil, fmt.Errorf("load BPF programs and maps: %w", err)
	}
	defer collection.Close() // of what is not taken out of it below
	o := &objects{data: make(map[string]*ebpf.Map)}
	if err := assign(collection, &o.MeterObjects); err != nil {
		return nil, fmt.Errorf("load BPF programs and maps: %w", err)
	}
	for _, name := range []string{mapEpoch, mapPressure} {
		o.data[name] = collection.DetachMap(name)
	}
	return o, nil
}

// sizedSpec returns the collection with the size of the maps of flows, the buckets of each
// possible CPU, and a fresh set id, which only counts for fresh maps.
func (b build) sizedSpec(capacity, buckets uint32, cpus int) (*ebpf.CollectionSpec, error) {
	spec, err := b.spec()
	if err != nil {
		return nil, fmt.Errorf("read BPF object: %w", err)
	}
	for _, name := range flowMaps {
		spec.Maps[name].MaxEntries = capacity
	}
	if err := b.sizeFronts(spec, buckets, cpus); err != nil {
		return nil, err
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("make set id: %w", err)
	}
	// From 1, so that the set that nobody has written yet is epoch 0's.
	state := bpf.MeterEpochState{Epoch: 1, SetId: binary.NativeEndian.Uint64(id[:])}
	if err := spec.Variables[bpf.MeterVarEpoch].Set(state); err != nil {
		return nil, fmt.Errorf("set first epoch: %w", err)
	}
	return spec, nil
}

func (b build) sizeFronts(spec *ebpf.CollectionSpec, buckets uint32, cpus int) error {
	if b.layouts[0].openFront == nil {
		return nil
	}
	for _, name := range frontMaps {
		spec.Maps[name].MaxEntries = buckets * uint32(cpus)
	}
	if err := spec.Variables[bpf.MeterVarFrontBuckets].Set(buckets); err != nil {
		return fmt.Errorf("set size of fronts: %w", err)
	}
	return nil
}

func (o *objects) close() error {
	return errors.Join(o.MeterObjects.Close(), closeAll(o.data))
}

// laterMaps are those that came after the first build, which has left none: begun anew,
// they lack nothing that it counted.
var laterMaps = []string{
	bpf.MeterMapMore0, bpf.MeterMapMore1, bpf.MeterMapMoreDisplaced0, bpf.MeterMapMoreDisplaced1,
}

// pinNames are the collection's names of the maps that no later build changes, with those
// that came later, by the names of their pins, none of which may hold a dot.
func pinNames(later []string) map[string]string {
	names := map[string]string{"epoch": mapEpoch, "pressure": mapPressure}
	for _, name := range []string{
		bpf.MeterMapTotals0, bpf.MeterMapTotals1,
		bpf.MeterMapDisplaced0, bpf.MeterMapDisplaced1, bpf.MeterMapOutcomes, bpf.MeterMapWakeups,
	} {
		names[name] = name
	}
	for _, name := range later {
		names[name] = name
	}
	return names
}

// shared are the maps by the collection's names of them, for other programs that count
// into them. Those that can be interrupted go past the fronts.
func (o *objects) shared() map[string]*ebpf.Map {
	shared := o.byName()
	for _, name := range frontMaps {
		delete(shared, name)
	}
	return shared
}

// pinned are the maps by the names of their pins, given the collection's names of them.
func (o *objects) pinned(names map[string]string) map[string]*ebpf.Map {
	all := o.byName()
	pinned := make(map[string]*ebpf.Map, len(names))
	for pin, name := range names {
		pinned[pin] = all[name]
	}
	return pinned
}

// byName are the maps by the collection's names of them.
func (o *objects) byName() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		flowMaps[0]:                o.Flows0,
		flowMaps[1]:                o.Flows1,
		frontMaps[0]:               o.Front0,
		frontMaps[1]:               o.Front1,
		bpf.MeterMapTotals0:        o.Totals0,
		bpf.MeterMapTotals1:        o.Totals1,
		bpf.MeterMapDisplaced0:     o.Displaced0,
		bpf.MeterMapDisplaced1:     o.Displaced1,
		bpf.MeterMapMore0:          o.More0,
		bpf.MeterMapMore1:          o.More1,
		bpf.MeterMapMoreDisplaced0: o.MoreDisplaced0,
		bpf.MeterMapMoreDisplaced1: o.MoreDisplaced1,
		bpf.MeterMapOutcomes:       o.Outcomes,
		bpf.MeterMapWakeups:        o.Wakeups,
		mapEpoch:                   o.data[mapEpoch],
		mapPressure:                o.data[mapPressure],
	}
}
