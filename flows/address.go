// SPDX-License-Identifier: Apache-2.0

package flows

import "net/netip"

var (
	// sharedSpace is the address space shared by the customers of carriers (RFC 6598).
	sharedSpace = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10)
	// limitedBroadcast is 255.255.255.255 (RFC 919).
	limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// KindOf returns what an address, unmapped, is by itself, when nobody is known to
// own it: PeerLinkLocal, PeerMulticast, PeerPrivate or PeerExternal;
// PeerUnattributed if it is invalid.
func KindOf(a netip.Addr) PeerKind {
	switch {
	case !a.IsValid():
		return PeerUnattributed
	case a.IsLoopback(), a.IsLinkLocalUnicast(), a.IsUnspecified():
		return PeerLinkLocal
	case a.IsMulticast(), a == limitedBroadcast:
		return PeerMulticast
	case a.IsPrivate(), sharedSpace.Contains(a):
		return PeerPrivate
	}
	return PeerExternal
}
