// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// restingMap reads a map of a set that no program writes now, and clears it of what was
// read. With per-CPU values there are cpus of them for each key, else one.
type restingMap[K comparable, V any] struct {
	m      *ebpf.Map
	reader *batchReader[K, V]
	// keys are those of the entries that were read and are to be cleared; buffer
	// is the memory they lie in.
	keys, buffer []K
}

func newRestingMap[K comparable, V any](m *ebpf.Map, cpus int) restingMap[K, V] {
	return restingMap[K, V]{m: m, reader: newBatchReader[K, V](m, cpus)}
}

// read calls visit for each entry, and begin before, and again when it has to begin anew.
func (r *restingMap[K, V]) read(begin func(), visit func(key *K, slots []V)) error {
	cpus := r.reader.cpus
	return r.reader.read(
		func() {
			r.keys = spare(r.buffer, len(r.buffer))
			begin()
		},
		func(keys []K, slots []V) {
			r.keys = append(r.keys, keys...)
			r.buffer = r.keys
			for i := range keys {
				visit(&keys[i], slots[i*cpus:(i+1)*cpus])
			}
		})
}

// clear deletes the entries that were read, and calls missed for those that are left then:
// the read missed them, which must not be.
func (r *restingMap[K, V]) clear(missed func(key *K, slots []V)) error {
	chunk := len(r.reader.keys)
	for len(r.keys) > 0 {
		keys := r.keys[:min(chunk, len(r.keys))]
		if err := r.delete(keys); err != nil {
			return fmt.Errorf("clear map %s: %w", r.m, err)
		}
		r.keys = r.keys[len(keys):]
	}
	return r.clearMissed(missed)
}

// delete removes keys at once, or one by one where a failed attempt before has
// left a part of them.
func (r *restingMap[K, V]) delete(keys []K) error {
	if _, err := r.m.BatchDelete(keys, nil); err == nil {
		return nil
	}
	for _, key := range keys {
		if err := r.m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// clearMissed empties the map of what clear left, until it is verified empty.
func (r *restingMap[K, V]) clearMissed(missed func(key *K, slots []V)) error {
	var key K
	slots := make([]V, r.reader.cpus)
	for {
		err := r.m.NextKey(nil, &key)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("verify that map %s is empty: %w", r.m, err)
		}
		if err := r.lookup(&key, slots); err != nil {
			return fmt.Errorf("read missed entry: %w", err)
		}
		missed(&key, slots)
		if err := r.m.Delete(key); err != nil {
			return fmt.Errorf("delete missed entry: %w", err)
		}
	}
}

func (r *restingMap[K, V]) lookup(key *K, slots []V) error {
	if r.reader.cpus == 1 && (r.m.Type() == ebpf.Hash || r.m.Type() == ebpf.LRUHash) {
		return r.m.Lookup(key, &slots[0])
	}
	return r.m.Lookup(key, slots)
}
