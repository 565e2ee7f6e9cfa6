// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf"
)

// FlooredShares is how many shares have their floor of a table whatever the others do: more
// than the 110 pods that a kubelet runs by default, with those that end and the node's own.
const FlooredShares = 128

// SocketFloor is how many of so many sockets a share has whatever others do. An eighth is
// for floors: as many as the rest come in a drain interval of 5 s with 10,000 connections a
// second between two pods, before anybody knows that they are that many.
func SocketFloor(entries uint32) uint32 { return entries / (8 * FlooredShares) }

// EndFloor is how many of so many ends of connections it has. A quarter is for floors.
func EndFloor(entries uint32) uint32 { return entries / (4 * FlooredShares) }

// SizeSockets sets how many sockets, and how many ends of connections in an epoch, the
// maps of a specification that [LoadSocket] returned hold, and what each share has of them:
// its floor, and what all have in common, which is the rest.
func SizeSockets(spec *ebpf.CollectionSpec, sockets, ends uint32) error {
	for name, entries := range map[string]uint32{SocketMapSockets: sockets, SocketMapHealth0: ends, SocketMapHealth1: ends} {
		if entries > math.MaxInt32 {
			return fmt.Errorf("size map %s: more than %d entries", name, math.MaxInt32)
		}
		spec.Maps[name].MaxEntries = entries
	}
	for name, value := range map[string]uint32{
		SocketVarSocketsFloor: SocketFloor(sockets), SocketVarSocketsCommon: sockets - FlooredShares*SocketFloor(sockets),
		SocketVarHealthFloor: EndFloor(ends), SocketVarHealthCommon: ends - FlooredShares*EndFloor(ends),
	} {
		if err := spec.Variables[name].Set(int32(value)); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}
