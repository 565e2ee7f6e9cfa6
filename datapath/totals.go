// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
)

// displaceTries is how often a displaced entry is asked for, a millisecond apart.
const displaceTries = 100

// totals are a set's cumulative counters by point and direction. Each of these
// has one place in an array, which is quick to find for the programs, or if
// another owns it an entry in a hash. What is where is told by the maps alone.
//
// All methods may be called while programs write.
type totals struct {
	places, displaced *ebpf.Map
	cpus              int
	// changing is held by who gives or frees a place: the kernel writes one CPU
	// after the other.
	changing sync.Mutex

	placeReader     *batchReader[uint32, bpf.MeterTotalPlace]
	displacedReader *batchReader[bpf.MeterTotalKey, bpf.MeterTotalCounters]
}

func newTotals(places, displaced *ebpf.Map, cpus int) *totals {
	return &totals{
		places: places, displaced: displaced, cpus: cpus,
		placeReader:     newBatchReader[uint32, bpf.MeterTotalPlace](places, cpus),
		displacedReader: newBatchReader[bpf.MeterTotalKey, bpf.MeterTotalCounters](displaced, cpus),
	}
}

// readTotals returns the cumulative totals of every point, summed over CPUs.
func (t *totals) readTotals() (map[bpf.MeterTotalKey]bpf.MeterTotalCounters, error) {
	all := make(map[bpf.MeterTotalKey]bpf.MeterTotalCounters)
	// A pass that starts anew finds the same keys: what it found before is overwritten.
	begin := func() {}
	err := t.placeReader.read(begin, func(_ []uint32, slots []bpf.MeterTotalPlace) {
		for ; len(slots) > 0; slots = slots[t.cpus:] {
			if owner := slots[0].Owner; owner != (bpf.MeterTotalKey{}) {
				all[owner] = sumPlace(slots[:t.cpus])
			}
		}
	})
	if err != nil {
		return nil, err
	}
	err = t.displacedReader.read(begin, func(keys []bpf.MeterTotalKey, slots []bpf.MeterTotalCounters) {
		for i, key := range keys {
			all[key] = sumTotals(slots[i*t.cpus : (i+1)*t.cpus])
		}
	})
	return all, err
}

// readTotal returns the cumulative totals of one point and direction, summed
// over CPUs, the zero value if it has none.
func (t *totals) readTotal(key bpf.MeterTotalKey) (bpf.MeterTotalCounters, error) {
	total, _, err := t.find(key)
	return total, err
}

// find returns the totals of a point and direction, and whether it has any.
func (t *totals) find(key bpf.MeterTotalKey) (total bpf.MeterTotalCounters, found bool, err error) {
	place, err := t.place(key)
	if err != nil {
		return total, false, err
	}
	if place[0].Owner == key {
		return sumPlace(place), true, nil
	}
	slots := make([]bpf.MeterTotalCounters, t.cpus)
	err = t.displaced.Lookup(key, slots)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return total, false, nil
	}
	if err != nil {
		return total, false, fmt.Errorf("read displaced totals of point %d: %w", key.Point, err)
	}
	return sumTotals(slots), true, nil
}

// place returns what each CPU has in the only place that a key can own.
func (t *totals) place(key bpf.MeterTotalKey) ([]bpf.MeterTotalPlace, error) {
	slots := make([]bpf.MeterTotalPlace, t.cpus)
	if err := t.places.Lookup(key.Place(), slots); err != nil {
		return nil, fmt.Errorf("read totals of point %d: %w", key.Point, err)
	}
	return slots, nil
}

// createPoint makes the totals that a program needs to count at all. It comes
// before the attachment, while nobody can write them.
func (t *totals) createPoint(point uint32) error {
	t.changing.Lock()
	defer t.changing.Unlock()
	for direction := range uint32(flows.Directions) {
		if err := t.create(bpf.MeterTotalKey{Point: point, Direction: direction}); err != nil {
			return fmt.Errorf("create totals of point %d: %w", point, err)
		}
	}
	return nil
}

func (t *totals) create(key bpf.MeterTotalKey) error {
	// A displaced point stays where it is when its place has become free.
	if _, found, err := t.find(key); found || err != nil {
		return err
	}
	place, err := t.place(key)
	if err != nil {
		return err
	}
	if place[0].Owner != (bpf.MeterTotalKey{}) {
		return t.displace(key)
	}
	return t.own(key, key)
}

// displace makes an entry in the hash. Linux takes its memory from a reserve that
// it fills up in the background (kernel/bpf/memalloc.c): with many possible CPUs
// it can be empty for some milliseconds.
func (t *totals) displace(key bpf.MeterTotalKey) error {
	for try := 1; ; try++ {
		err := t.displaced.Update(key, make([]bpf.MeterTotalCounters, t.cpus), ebpf.UpdateNoExist)
		if try == displaceTries || !errors.Is(err, unix.ENOMEM) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// own gives the place of a key to an owner, the zero value to free it, with
// counters from zero.
func (t *totals) own(key, owner bpf.MeterTotalKey) error {
	slots := make([]bpf.MeterTotalPlace, t.cpus)
	for i := range slots {
		slots[i].Owner = owner
	}
	return t.places.Update(key.Place(), slots, ebpf.UpdateExist)
}

// deletePoint removes a point's totals, after its interface has gone, a grace
// period and a drain of both sets.
func (t *totals) deletePoint(point uint32) error {
	t.changing.Lock()
	defer t.changing.Unlock()
	for direction := range uint32(flows.Directions) {
		if err := t.delete(bpf.MeterTotalKey{Point: point, Direction: direction}); err != nil {
			return fmt.Errorf("delete totals of point %d: %w", point, err)
		}
	}
	return nil
}

func (t *totals) delete(key bpf.MeterTotalKey) error {
	place, err := t.place(key)
	if err != nil {
		return err
	}
	if place[0].Owner == key {
		return t.own(key, bpf.MeterTotalKey{})
	}
	err = t.displaced.Delete(key)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

func sumPlace(slots []bpf.MeterTotalPlace) (sum bpf.MeterTotalCounters) {
	for i := range slots {
		addTotals(&sum, &slots[i].Counters)
	}
	return sum
}

func sumTotals(slots []bpf.MeterTotalCounters) (sum bpf.MeterTotalCounters) {
	for i := range slots {
		addTotals(&sum, &slots[i])
	}
	return sum
}

func addTotals(sum, slot *bpf.MeterTotalCounters) {
	sum.Bytes += slot.Bytes
	sum.Packets += slot.Packets
	sum.Inserted += slot.Inserted
	sum.UnplacedBytes += slot.UnplacedBytes
	sum.UnplacedPackets += slot.UnplacedPackets
}
