// SPDX-License-Identifier: Apache-2.0

package flows

// Types of ICMPv6 messages of neighbour discovery (RFC 4861, 4): from the router solicitation
// to the redirect.
const (
	firstNeighbourDiscovery = 133
	lastNeighbourDiscovery  = 137
)

// onLink reports whether peers of a kind are reached on the pod's own link alone: they are
// on one row a pod, kind and protocol, unless [Optional].LinkLocalPeers asks for more.
func (k PeerKind) onLink() bool {
	return k == PeerLink || k == PeerLinkLocal || k == PeerMulticast
}

// bounded reports whether the rows of a kind are few whatever a pod sends: they stand outside
// the limits, and have neither the container nor the process of a socket.
func (k PeerKind) bounded(linkLocalPeers bool) bool {
	return k == PeerUnattributed || k.onLink() && !linkLocalPeers
}

// isNeighbourDiscovery reports whether the packets of a flow are of RFC 4861.
func (k *Key) isNeighbourDiscovery() bool {
	kind := k.DestinationPort >> 8
	return k.Protocol == ProtocolICMPv6 && k.EtherType == EtherTypeIPv6 &&
		kind >= firstNeighbourDiscovery && kind <= lastNeighbourDiscovery
}

// onLink returns the kind of a peer that takes no row of its own, and whether it is one. Those are
// peers of such kinds, and pods and nodes of which nothing but neighbour discovery is seen: on a
// bridge each pair of them discovers one another. A router forwards what only looks like neighbour
// discovery, so that it keeps a peer that is known to be elsewhere: it would be a way to
// hide traffic to another zone or to the internet.
func (a *attribution) onLink(record *Record, owner *Owner) (PeerKind, bool) {
	if a.optional.LinkLocalPeers {
		return 0, false
	}
	node, _ := a.directory.Here()
	near := (owner.Kind == PeerPod || owner.Kind == PeerNode) && (owner.Node == "" || owner.Node == node)
	if near && record.Key.isNeighbourDiscovery() {
		return PeerLinkLocal, true
	}
	return owner.Kind, owner.Kind.onLink()
}
