// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"

	"github.com/podmeter/podmeter/flows"
)

// The owners that have no name, made once. They are never changed.
var (
	ownerAmbiguous = &flows.Owner{Kind: flows.PeerUnattributed}
	ownerCluster   = &flows.Owner{Kind: flows.PeerCluster}
	ownerPrivate   = &flows.Owner{Kind: flows.PeerPrivate}
	ownerExternal  = &flows.Owner{Kind: flows.PeerExternal}
	ownerMulticast = &flows.Owner{Kind: flows.PeerMulticast}
	ownerLinkLocal = &flows.Owner{Kind: flows.PeerLinkLocal}
)

var (
	// sharedSpace is RFC 6598's shared address space of carriers.
	sharedSpace = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10)
	// limitedBroadcast is 255.255.255.255 (RFC 919).
	limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// special returns the owner of an address that nobody is known to own.
func special(a netip.Addr) *flows.Owner {
	switch {
	case !a.IsValid():
		return ownerAmbiguous
	case a.IsLoopback(), a.IsLinkLocalUnicast(), a.IsUnspecified():
		return ownerLinkLocal
	case a.IsMulticast(), a == limitedBroadcast:
		return ownerMulticast
	case a.IsPrivate(), sharedSpace.Contains(a):
		return ownerPrivate
	}
	return ownerExternal
}
