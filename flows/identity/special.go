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

// special returns the owner of an address that nobody is known to own.
func special(a netip.Addr) *flows.Owner {
	switch flows.KindOf(a) {
	case flows.PeerLinkLocal:
		return ownerLinkLocal
	case flows.PeerMulticast:
		return ownerMulticast
	case flows.PeerPrivate:
		return ownerPrivate
	case flows.PeerExternal:
		return ownerExternal
	}
	return ownerAmbiguous
}
