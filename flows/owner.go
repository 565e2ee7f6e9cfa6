// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"time"
	"unique"
)

// Workload is the controller that a pod belongs to.
type Workload struct {
	// Type is the controller's kind in lower case, as kubernetes-mixin writes
	// it: deployment, statefulset, daemonset, job, cronjob, staticpod …; empty for none.
	Type string
	Name string
}

// BarePod is the type of a workload that is a single pod without a controller, as
// kubernetes-mixin writes it.
const BarePod = "barepod"

// Pod is the identity of a pod, fixed from the moment an interface is bound.
type Pod struct {
	UID             string
	Namespace, Name string
	Workload        Workload
	// Container is the name of the pod's only container, counting init, sidecar
	// and ephemeral ones; empty when it has several.
	Container string
	// Node is the node's name, Zone its label topology.kubernetes.io/zone.
	Node, Zone string
}

// OwnWorkload returns the pod's workload. A pod without a controller is its own, whether it
// is the metered end of a flow or the peer.
func (p *Pod) OwnWorkload() Workload {
	if p.Workload.Name != "" {
		return p.Workload
	}
	return Workload{Type: BarePod, Name: p.Name}
}

// PeerKind says what a peer is. The kinds are a partition: each byte has one.
type PeerKind uint8

// The kinds of a peer, as the label peer_kind shows them.
const (
	PeerUnattributed PeerKind = iota // not in any flow, or the owner is ambiguous
	PeerPod
	PeerService   // ClusterIP, external or load-balancer address
	PeerNode      // a node's or this host's address
	PeerCIDR      // a range that the user named
	PeerCluster   // inside the cluster's ranges, owner unknown
	PeerPrivate   // RFC 1918, RFC 6598, RFC 4193
	PeerExternal  // global unicast
	PeerMulticast // multicast and broadcast
	PeerLinkLocal // link-local, loopback and the unspecified address
	PeerLink      // no IP header
	PeerOther     // folded by an agent of before the kind was kept
)

var peerKindNames = [...]string{
	PeerUnattributed: "unattributed",
	PeerPod:          "pod",
	PeerService:      "service",
	PeerNode:         "node",
	PeerCIDR:         "cidr",
	PeerCluster:      "cluster",
	PeerPrivate:      "private",
	PeerExternal:     "external",
	PeerMulticast:    "multicast",
	PeerLinkLocal:    "link_local",
	PeerLink:         "link",
	PeerOther:        "other",
}

// String returns the value of the label peer_kind.
func (k PeerKind) String() string { return peerKindNames[k] }

// Owner is who owned an address: the peer of a flow.
type Owner struct {
	Kind PeerKind
	// Namespace and Name are the peer's namespace and the name of its workload,
	// Service, Node or CIDR.
	Namespace, Name string
	// WorkloadType is the type of a pod's workload.
	WorkloadType string
	// Service is the name of the Service that was addressed.
	Service string
	// Pod is the pod's name.
	Pod string
	// Node and Zone are where a pod or node is, empty when unknown.
	Node, Zone string
	// Announced says that the address is the owner's by its own word alone.
	Announced bool
}

// Query asks a [Directory] for the owner of an address.
type Query struct {
	Address  netip.Addr
	Protocol uint8  // IP protocol number
	Port     uint16 // of the address asked for
	// First and Last bound the time of the flow.
	First, Last time.Time
}

// Directory knows the owners of addresses and when they owned them. It is safe
// for concurrent use and allocates nothing when it answers.
type Directory interface {
	// Owner returns who owned the address during all of the query's time. It
	// is never nil; an address that changed hands meanwhile has an owner of
	// kind PeerUnattributed. The result must not be changed.
	Owner(Query) *Owner
	// LocalPod returns the pod of this node whose interface, with this address,
	// was there between from and to; nil if that may be none or several, as
	// while a pod is being deleted. Pods with hostNetwork own no address.
	LocalPod(address netip.Addr, from, to time.Time) *Pod
	// Here returns this node's name and zone, empty when unknown.
	Here() (node, zone string)
}

// Locality says how far away a peer is.
type Locality uint8

// The localities, as the label locality shows them.
const (
	LocalityUnknown Locality = iota
	LocalitySameNode
	LocalitySameZone
	LocalityCrossZone
	LocalityExternal
)

var localityNames = [...]string{
	LocalityUnknown:   "unknown",
	LocalitySameNode:  "same_node",
	LocalitySameZone:  "same_zone",
	LocalityCrossZone: "cross_zone",
	LocalityExternal:  "external",
}

// String returns the value of the label locality.
func (l Locality) String() string { return localityNames[l] }

// Protocol is the transport protocol as the label protocol tells it.
type Protocol uint8

// The protocols told apart.
const (
	ProtoOther Protocol = iota
	ProtoTCP
	ProtoUDP
	ProtoSCTP
	ProtoICMP
	ProtoICMPv6
)

var protocolNames = [...]string{
	ProtoOther:  "other",
	ProtoTCP:    "tcp",
	ProtoUDP:    "udp",
	ProtoSCTP:   "sctp",
	ProtoICMP:   "icmp",
	ProtoICMPv6: "icmpv6",
}

// String returns the value of the label protocol.
func (p Protocol) String() string { return protocolNames[p] }

func protocolOf(number uint8) Protocol {
	switch number {
	case ProtocolTCP:
		return ProtoTCP
	case ProtocolUDP:
		return ProtoUDP
	case ProtocolSCTP:
		return ProtoSCTP
	case ProtocolICMP:
		return ProtoICMP
	case ProtocolICMPv6:
		return ProtoICMPv6
	}
	return ProtoOther
}

// Place is where an external address is, as far as the databases know. What
// is unknown is empty.
type Place struct {
	Country      string // ISO 3166-1 alpha-2
	City         string // English name
	PostalCode   string // as the country writes it; empty unless asked for
	Latitude     string // decimal degrees
	Longitude    string // decimal degrees
	ASN          string // autonomous system number in decimal
	Organization string // of the autonomous system
}

// Places knows where addresses are. It is safe for concurrent use.
type Places interface {
	// Handle returns where the address is; that of the zero Place when unknown.
	Handle(netip.Addr) unique.Handle[Place]
}
