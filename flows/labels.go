// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unique"
)

// FlowLabels tell the rows of one pod in the flow family apart. What is unknown
// or was not asked for is zero, and not written down.
type FlowLabels struct {
	Container        string `cbor:",omitempty"`
	Workload         Workload
	PeerKind         PeerKind
	Locality         Locality
	Protocol         Protocol
	PeerNamespace    string `cbor:",omitempty"`
	Peer             string `cbor:",omitempty"`
	PeerWorkloadType string `cbor:",omitempty"`
	Service          string `cbor:",omitempty"`

	// Opt-in.
	PeerPod  string     `cbor:",omitempty"`
	PeerIP   netip.Addr `cbor:",omitzero"`
	PeerPort uint16     `cbor:",omitempty"`
	Process  string     `cbor:",omitempty"`
}

// ExternalLabels tell the rows of one pod in the external family apart.
type ExternalLabels struct {
	Country, ASN, Organization string `cbor:",omitempty"`

	// Opt-in.
	City, Latitude, Longitude string     `cbor:",omitempty"`
	IP                        netip.Addr `cbor:",omitzero"`
	Container                 string     `cbor:",omitempty"`
}

// Optional chooses the opt-in labels.
type Optional struct {
	PeerPod, PeerIP, PeerPort, Process bool // of the flow family

	City, Latitude, Longitude, IP, Container bool // of the external family

	// LinkLocalPeers gives peers on the pod's own link the labels that others have, and rows
	// within the limits: the table needs it as well.
	LinkLocalPeers bool
}

// ParseOptional returns the choice of opt-in labels by their names in the flow
// and the external family. The error names every label that is none of them,
// whether unknown or always written.
func ParseOptional(flowLabels, externalLabels []string) (Optional, error) {
	var o Optional
	err := errors.Join(
		choose("flow", flowLabels,
			map[string]*bool{"peer_pod": &o.PeerPod, "peer_ip": &o.PeerIP, "peer_port": &o.PeerPort, "process": &o.Process},
			"namespace", "pod", "container", "workload", "workload_type", "peer_kind", "peer_namespace", "peer",
			"peer_workload_type", "service", "locality", "protocol"),
		choose("external", externalLabels,
			map[string]*bool{"city": &o.City, "latitude": &o.Latitude, "longitude": &o.Longitude, "ip": &o.IP,
				"container": &o.Container},
			"namespace", "pod", "country", "asn", "organization"),
	)
	if err != nil {
		return Optional{}, err
	}
	return o, nil
}

// choose sets what the names stand for; always are the names of a family's
// other labels.
func choose(family string, names []string, choices map[string]*bool, always ...string) error {
	var faults []error
	for _, name := range names {
		switch choice := choices[name]; {
		case choice != nil:
			*choice = true
		case slices.Contains(always, name):
			faults = append(faults, fmt.Errorf("%s label %q is always written, leave it out", family, name))
		default:
			known := strings.Join(slices.Sorted(maps.Keys(choices)), ", ")
			faults = append(faults, fmt.Errorf("unknown %s label %q, known are %s", family, name, known))
		}
	}
	return errors.Join(faults...)
}

// folded is the peer of a flow row and the country of an external row that take what a limit
// folds.
const folded = "other"

// rowLabels are the labels of both families for one record. Those of the local
// pod are filled in when it is known.
type rowLabels struct {
	flow     FlowLabels
	external ExternalLabels // used if flow.PeerKind is PeerExternal
}

// local fills in what follows from the pod, and from who used its end of the flow.
func (l rowLabels) local(pod *Pod, by user, optional *Optional) rowLabels {
	if l.flow.PeerKind.bounded(optional.LinkLocalPeers) {
		l.flow = FlowLabels{PeerKind: l.flow.PeerKind, Protocol: l.flow.Protocol}
		by = user{}
	}
	l.flow.Container = pod.Container
	if pod.Container == "" {
		l.flow.Container = by.container
	}
	l.flow.Workload = pod.Workload
	if optional.Process {
		l.flow.Process = by.process
	}
	if optional.Container {
		l.external.Container = l.flow.Container
	}
	return l
}

// attribution turns flow keys into labels.
type attribution struct {
	directory   Directory
	places      Places
	optional    Optional
	nat64       NAT64
	translation *translation // nil if backends of Services are not looked up
	sockets     *sockets     // nil if sockets are not read
}

// source is what the labels of a record are made of. It is quick to compare, where labels
// are many strings; two of them may make the same labels.
type source struct {
	kind     PeerKind // of a source without an owner
	protocol Protocol
	port     uint16               // if it is a label, as is the address
	owner    *Owner               // nil of what has no labels but the kind and the protocol
	service  *Owner               // of the address that was asked, if it was a Service's
	place    unique.Handle[Place] // of an external owner, if places are known
	address  netip.Addr
	stored   *rowLabels // what an earlier agent made, instead of all the others
}

// labels returns the labels of a record, those of the local pod left empty.
func (a *attribution) labels(record *Record) rowLabels {
	s := a.source(record)
	return a.labelsOf(&s)
}

// source returns what the labels of a record are made of.
func (a *attribution) source(record *Record) (s source) {
	if !record.Key.IsIP() {
		return source{kind: PeerLink}
	}
	address, port := record.Key.Peer()
	s.protocol = protocolOf(record.Key.Protocol)
	owner := a.directory.Owner(Query{
		Address: address, Protocol: record.Key.Protocol, Port: port,
		First: record.First, Last: record.Last,
	})
	if owner.Kind == PeerUnattributed {
		return unattributed(s.protocol)
	}
	placed := address
	if embedded, ok := a.nat64.Embedded(address); ok {
		owner, placed = a.behindNAT64(owner, embedded, record), embedded
	}
	if kind, on := a.onLink(record, owner); on {
		s.kind = kind
		return s
	}
	if owner.Service != "" {
		s.service = owner
	}
	if owner.Kind == PeerService {
		owner, address, port = a.behind(record, owner, address, port)
	}
	s.owner = owner
	if a.optional.PeerPort {
		s.port = port
	}
	external := owner.Kind == PeerExternal
	if a.optional.PeerIP || external && a.optional.IP {
		s.address = address
	}
	if external && a.places != nil {
		s.place = a.places.Handle(placed)
	}
	return s
}

// labelsOf returns the labels that are made of a source.
func (a *attribution) labelsOf(s *source) rowLabels {
	if s.stored != nil {
		return *s.stored
	}
	var l rowLabels
	l.flow.Protocol = s.protocol
	if s.owner == nil {
		l.flow.PeerKind = s.kind
		return l
	}
	a.peer(&l.flow, s.owner)
	if s.service != nil {
		l.flow.Service = s.service.Service
	}
	l.flow.PeerPort = s.port
	if a.optional.PeerIP {
		l.flow.PeerIP = s.address
	}
	if s.owner.Kind == PeerExternal {
		l.external = a.place(s)
	}
	return l
}

// behindNAT64 returns the owner of a translator's address by the IPv4 address in it, unless
// somebody is known to have the whole one: what range that is in, or what it is by itself. Who
// has it where the packet comes out of the translator is not known here.
func (a *attribution) behindNAT64(whole *Owner, embedded netip.Addr, record *Record) *Owner {
	switch whole.Kind {
	case PeerExternal, PeerPrivate, PeerMulticast, PeerLinkLocal:
	default:
		return whole
	}
	owner := a.directory.Owner(Query{Address: embedded, First: record.First, Last: record.Last})
	if owner.Kind == PeerCIDR {
		return owner
	}
	if kind := KindOf(embedded); kind != whole.Kind {
		return &plainOwners[kind]
	}
	return whole
}

// plainOwners are those of which only the kind is known.
var plainOwners = func() (owners [len(peerKindNames)]Owner) {
	for kind := range owners {
		owners[kind].Kind = PeerKind(kind)
	}
	return owners
}()

// behind returns the pod that answered for a Service, and its address and port; the
// Service and its own if that is not known for certain. A pod of another namespace is
// not told: the label service has none of its own.
func (a *attribution) behind(record *Record, service *Owner, address netip.Addr, port uint16) (*Owner, netip.Addr, uint16) {
	backend, ok := a.translation.backend(record)
	if !ok {
		return service, address, port
	}
	pod := a.directory.Owner(Query{
		Address: backend.Addr(), Protocol: record.Key.Protocol, Port: backend.Port(),
		First: record.First, Last: record.Last,
	})
	if pod.Kind != PeerPod || pod.Namespace != service.Namespace {
		return service, address, port
	}
	return pod, backend.Addr(), backend.Port()
}

// unattributed is the source of bytes without a peer: few, as these rows stand
// outside the limits.
func unattributed(protocol Protocol) source {
	return source{kind: PeerUnattributed, protocol: protocol}
}

func unattributedLabels(protocol Protocol) rowLabels {
	return rowLabels{flow: FlowLabels{PeerKind: PeerUnattributed, Protocol: protocol}}
}

func (a *attribution) peer(l *FlowLabels, owner *Owner) {
	l.PeerKind = owner.Kind
	l.Locality = a.locality(owner)
	l.PeerNamespace, l.Peer = owner.Namespace, owner.Name
	l.PeerWorkloadType = owner.WorkloadType
	if a.optional.PeerPod {
		l.PeerPod = owner.Pod
	}
}

func (a *attribution) locality(owner *Owner) Locality {
	node, zone := a.directory.Here()
	switch {
	case owner.Kind == PeerExternal:
		return LocalityExternal
	case owner.Node == "":
		return LocalityUnknown
	case owner.Node == node:
		return LocalitySameNode
	case owner.Zone == "" || zone == "":
		return LocalityUnknown
	case owner.Zone == zone:
		return LocalitySameZone
	}
	return LocalityCrossZone
}

// place returns the labels of an external address, of which the place is that of another if it
// is a translator's.
func (a *attribution) place(s *source) ExternalLabels {
	var l ExternalLabels
	if a.optional.IP {
		l.IP = s.address
	}
	if a.places == nil {
		return l
	}
	place := s.place.Value()
	l.Country, l.ASN, l.Organization = place.Country, place.ASN, place.Organization
	if a.optional.City {
		l.City = place.City
	}
	if a.optional.Latitude {
		l.Latitude = place.Latitude
	}
	if a.optional.Longitude {
		l.Longitude = place.Longitude
	}
	return l
}
