// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf"
)

const (
	// FlooredShares is how many shares have their floor of a table whatever the others do:
	// more than the 110 pods that a kubelet has by default, and those that end.
	FlooredShares = 128
	// floorsOfTable is how many floors a table has: a quarter is for the floors of
	// FlooredShares, the rest is common.
	floorsOfTable = 4 * FlooredShares
)

// ShareFloor is how many entries of a table of some size a share has whatever others do.
// All of them have the rest in common.
func ShareFloor(entries uint32) uint32 { return entries / floorsOfTable }

// SizeSockets sets how many sockets, and how many ends of connections in an epoch, the
// maps of a specification that [LoadSocket] returned hold, and what each share has of them.
func SizeSockets(spec *ebpf.CollectionSpec, sockets, ends uint32) error {
	for name, entries := range map[string]uint32{SocketMapSockets: sockets, SocketMapHealth0: ends, SocketMapHealth1: ends} {
		if entries > math.MaxInt32 {
			return fmt.Errorf("size map %s: more than %d entries", name, math.MaxInt32)
		}
		spec.Maps[name].MaxEntries = entries
	}
	for name, value := range map[string]uint32{
		SocketVarSocketsFloor: ShareFloor(sockets), SocketVarSocketsCommon: sockets - FlooredShares*ShareFloor(sockets),
		SocketVarHealthFloor: ShareFloor(ends), SocketVarHealthCommon: ends - FlooredShares*ShareFloor(ends),
	} {
		if err := spec.Variables[name].Set(int32(value)); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}
