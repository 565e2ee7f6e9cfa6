// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"golang.org/x/sys/unix"
)

// displaceTries is how often a displaced entry is asked for, a millisecond apart.
const displaceTries = 100

// placed are a set's cumulative values V by point and direction. Each of these has one
// place P in an array, which is quick to find for the programs, or if another owns it an
// entry in a hash. What is where is told by the maps alone.
//
// All methods may be called while programs write.
type placed[P, V any] struct {
	places, displaced *ebpf.Map
	// width is how many values each entry has: the possible CPUs, or 1.
	width int
	parts func(*P) (*bpf.MeterTotalKey, *V)
	add   func(sum, slot *V)
	// changing is held by who gives or frees a place: the kernel writes one CPU
	// after the other.
	changing sync.Mutex

	// The readers hold some MiB, and are made by the first read.
	placeReader     *batchReader[uint32, P]
	displacedReader *batchReader[bpf.MeterTotalKey, V]
}

func newPlaced[P, V any](places, displaced *ebpf.Map, width int, parts func(*P) (*bpf.MeterTotalKey, *V), add func(sum, slot *V)) *placed[P, V] {
	return &placed[P, V]{places: places, displaced: displaced, width: width, parts: parts, add: add}
}

// read returns the values of every point, each summed over its entry.
func (p *placed[P, V]) read() (map[bpf.MeterTotalKey]V, error) {
	if p.placeReader == nil {
		p.placeReader = newBatchReader[uint32, P](p.places, p.width)
		p.displacedReader = newBatchReader[bpf.MeterTotalKey, V](p.displaced, p.width)
	}
	all := make(map[bpf.MeterTotalKey]V)
	// A pass that starts anew finds the same keys: what it found before is overwritten.
	begin := func() {}
	err := p.placeReader.read(begin, func(_ []uint32, slots []P) {
		for ; len(slots) > 0; slots = slots[p.width:] {
			if owner := p.ownerOf(slots); owner != (bpf.MeterTotalKey{}) {
				all[owner] = p.sumOf(slots[:p.width])
			}
		}
	})
	if err != nil {
		return nil, err
	}
	err = p.displacedReader.read(begin, func(keys []bpf.MeterTotalKey, slots []V) {
		for i, key := range keys {
			all[key] = p.sum(slots[i*p.width : (i+1)*p.width])
		}
	})
	return all, err
}

// find returns the value of a point and direction, summed over its entry, and whether it
// has any.
func (p *placed[P, V]) find(key bpf.MeterTotalKey) (value V, found bool, err error) {
	place, err := p.place(key)
	if err != nil {
		return value, false, err
	}
	if p.ownerOf(place) == key {
		return p.sumOf(place), true, nil
	}
	slots := make([]V, p.width)
	err = p.displaced.Lookup(key, slots)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return value, false, nil
	}
	if err != nil {
		return value, false, fmt.Errorf("read what is displaced of point %d: %w", key.Point, err)
	}
	return p.sum(slots), true, nil
}

// place returns the slots of the only place that a key can own.
func (p *placed[P, V]) place(key bpf.MeterTotalKey) ([]P, error) {
	slots := make([]P, p.width)
	if err := p.places.Lookup(key.Place(), slots); err != nil {
		return nil, fmt.Errorf("read the place of point %d: %w", key.Point, err)
	}
	return slots, nil
}

// create makes the value of a point and direction that has none, from zero.
func (p *placed[P, V]) create(key bpf.MeterTotalKey) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	// A displaced point stays where it is when its place has become free.
	if _, found, err := p.find(key); found || err != nil {
		return err
	}
	place, err := p.place(key)
	if err != nil {
		return err
	}
	if p.ownerOf(place) != (bpf.MeterTotalKey{}) {
		return p.displace(key)
	}
	return p.give(key, key)
}

// displace makes an entry in the hash. Linux takes its memory from a reserve that
// it fills up in the background (kernel/bpf/memalloc.c): with many possible CPUs
// it can be empty for some milliseconds.
func (p *placed[P, V]) displace(key bpf.MeterTotalKey) error {
	for try := 1; ; try++ {
		err := p.displaced.Update(key, make([]V, p.width), ebpf.UpdateNoExist)
		if try == displaceTries || !errors.Is(err, unix.ENOMEM) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// give gives the place of a key to an owner, the zero value to free it, with
// values from zero.
func (p *placed[P, V]) give(key, owner bpf.MeterTotalKey) error {
	slots := make([]P, p.width)
	for i := range slots {
		of, _ := p.parts(&slots[i])
		*of = owner
	}
	return p.places.Update(key.Place(), slots, ebpf.UpdateExist)
}

// delete removes the value of a point and direction.
func (p *placed[P, V]) delete(key bpf.MeterTotalKey) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	place, err := p.place(key)
	if err != nil {
		return err
	}
	if p.ownerOf(place) == key {
		return p.give(key, bpf.MeterTotalKey{})
	}
	err = p.displaced.Delete(key)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// align creates the values of the given keys that there are none of, and deletes those of all
// others. It is for once: the readers are given up.
func (p *placed[P, V]) align(keys map[bpf.MeterTotalKey]bpf.MeterTotalCounters) error {
	there, err := p.read()
	p.placeReader, p.displacedReader = nil, nil
	if err != nil {
		return err
	}
	for key := range there {
		if _, ok := keys[key]; ok {
			continue
		}
		if err := p.delete(key); err != nil {
			return fmt.Errorf("delete what is left of point %d: %w", key.Point, err)
		}
	}
	for key := range keys {
		if _, ok := there[key]; ok {
			continue
		}
		if err := p.create(key); err != nil {
			return fmt.Errorf("create what point %d lacks: %w", key.Point, err)
		}
	}
	return nil
}

// ownerOf returns whose a place is, the zero value if it is free.
func (p *placed[P, V]) ownerOf(slots []P) bpf.MeterTotalKey {
	owner, _ := p.parts(&slots[0])
	return *owner
}

func (p *placed[P, V]) sumOf(slots []P) (sum V) {
	for i := range slots {
		_, value := p.parts(&slots[i])
		p.add(&sum, value)
	}
	return sum
}

func (p *placed[P, V]) sum(slots []V) (sum V) {
	for i := range slots {
		p.add(&sum, &slots[i])
	}
	return sum
}
