// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	batchBytes  = 256 << 10 // of one batch in user space: eight maps have one each
	batchPasses = 8         // of a map before a failing read is given up
)

// batchReader reads all entries of a map, per-CPU or, with one CPU, another. Its
// buffers are kept from one read to the next.
type batchReader[K, V any] struct {
	m       *ebpf.Map
	cpus    int
	options *ebpf.BatchOptions
	keys    []K
	// slots has cpus values for each key.
	slots []V
}

func newBatchReader[K, V any](m *ebpf.Map, cpus int) *batchReader[K, V] {
	var key K
	var slot V
	size := max(64, batchBytes/(int(unsafe.Sizeof(key))+cpus*int(unsafe.Sizeof(slot))))
	size = min(size, int(m.MaxEntries()))
	return &batchReader[K, V]{m: m, cpus: cpus, keys: make([]K, size), slots: make([]V, size*cpus)}
}

// read calls visit for every batch of the map, whose writers rest. On an error
// the kernel may have moved the cursor past entries that it did not hand over:
// so begin is called again, to forget what was visited, and a new pass starts.
func (r *batchReader[K, V]) read(begin func(), visit func(keys []K, slots []V)) error {
	var err error
	for range batchPasses {
		begin()
		if err = r.pass(visit); err == nil {
			return nil
		}
		if errors.Is(err, unix.ENOSPC) {
			r.keys = make([]K, 2*len(r.keys))
			r.slots = make([]V, 2*len(r.slots))
		}
	}
	return fmt.Errorf("read map %s: %w", r.m, err)
}

func (r *batchReader[K, V]) pass(visit func(keys []K, slots []V)) error {
	var cursor ebpf.MapBatchCursor
	for {
		n, err := r.m.BatchLookup(&cursor, r.keys, r.slots, r.options)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		visit(r.keys[:n], r.slots[:n*r.cpus])
		if err != nil { // the last batch, which may be partial
			return nil
		}
	}
}
