// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
)

// shareBook reckons how many entries of sockets count towards each share. Programs count
// those that they make; which are not there any more is what a read of all did not find.
// So an error of one read ends with the next, and so does a count that is gone.
type shareBook struct {
	memory *ebpf.Memory
	shares []bpf.SocketShare // as of before the read
	found  []uint32          // by the read, for each share
}

func newShareBook(m *ebpf.Map) (*shareBook, error) {
	memory, err := m.Memory()
	if err != nil {
		return nil, fmt.Errorf("map memory of %s: %w", m, err)
	}
	n := m.MaxEntries()
	return &shareBook{memory: memory, shares: make([]bpf.SocketShare, n), found: make([]uint32, n)}, nil
}

// begin begins a read. What is made from here on counts twice if the read finds it, until
// the next.
func (b *shareBook) begin() error {
	clear(b.found)
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&b.shares[0])), len(b.shares)*int(unsafe.Sizeof(b.shares[0])))
	if _, err := b.memory.ReadAt(bytes, 0); err != nil {
		return fmt.Errorf("read shares of sockets: %w", err)
	}
	return nil
}

// add adds an entry that is there.
func (b *shareBook) add(share uint16) {
	if int(share) < len(b.found) {
		b.found[share]++
		b.found[bpf.ShareAll]++
	}
}

// remove takes away one that was added and is there no more.
func (b *shareBook) remove(share uint16) {
	if int(share) < len(b.found) {
		b.found[share]--
		b.found[bpf.ShareAll]--
	}
}

// end tells the programs what was found.
func (b *shareBook) end() error {
	var value [4]byte
	for n, share := range b.shares {
		gone := share.Made - b.found[n]
		if gone == share.Gone {
			continue
		}
		binary.NativeEndian.PutUint32(value[:], gone)
		offset := uintptr(n)*unsafe.Sizeof(share) + unsafe.Offsetof(share.Gone)
		if _, err := b.memory.WriteAt(value[:], int64(offset)); err != nil {
			return fmt.Errorf("write share %d of sockets: %w", n, err)
		}
	}
	return nil
}
