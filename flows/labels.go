// SPDX-License-Identifier: Apache-2.0

package flows

import "net/netip"

// FlowLabels tell the rows of one pod in the flow family apart. What is unknown
// or was not asked for is zero.
type FlowLabels struct {
	Container        string
	Workload         Workload
	PeerKind         PeerKind
	Locality         Locality
	Protocol         Protocol
	PeerNamespace    string
	Peer             string
	PeerWorkloadType string
	Service          string

	// Opt-in.
	PeerPod  string
	PeerIP   netip.Addr
	PeerPort uint16
}

// ExternalLabels tell the rows of one pod in the external family apart.
type ExternalLabels struct {
	Country, ASN, Organization string

	// Opt-in.
	City, Latitude, Longitude string
	IP                        netip.Addr
	Container                 string
}

// Optional chooses the opt-in labels.
type Optional struct {
	PeerPod, PeerIP, PeerPort bool // of the flow family

	City, Latitude, Longitude, IP, Container bool // of the external family
}

// foldedCountry marks the external row that takes what a limit folds.
const foldedCountry = "other"

// rowLabels are the labels of both families for one record. Those of the local
// pod are filled in when it is known.
type rowLabels struct {
	flow     FlowLabels
	external ExternalLabels // used if flow.PeerKind is PeerExternal
}

// local fills in what follows from the pod.
func (l rowLabels) local(pod *Pod, optional *Optional) rowLabels {
	l.flow.Container = pod.Container
	l.flow.Workload = pod.Workload
	if optional.Container {
		l.external.Container = pod.Container
	}
	return l
}

// attribution turns flow keys into labels.
type attribution struct {
	directory Directory
	places    Places
	optional  Optional
}

// labels returns the labels of a record, those of the local pod left empty.
func (a *attribution) labels(record *Record) rowLabels {
	var l rowLabels
	if !record.Key.IsIP() {
		l.flow.PeerKind = PeerLink
		return l
	}
	address, port := record.Key.Peer()
	l.flow.Protocol = protocolOf(record.Key.Protocol)
	owner := a.directory.Owner(Query{
		Address: address, Protocol: record.Key.Protocol, Port: port,
		First: record.First, Last: record.Last,
	})
	a.peer(&l.flow, owner)
	if a.optional.PeerIP {
		l.flow.PeerIP = address
	}
	if a.optional.PeerPort {
		l.flow.PeerPort = port
	}
	if owner.Kind == PeerExternal {
		l.external = a.place(address)
	}
	return l
}

func (a *attribution) peer(l *FlowLabels, owner *Owner) {
	l.PeerKind = owner.Kind
	l.Locality = a.locality(owner)
	l.PeerNamespace, l.Peer = owner.Namespace, owner.Name
	l.PeerWorkloadType, l.Service = owner.WorkloadType, owner.Service
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

func (a *attribution) place(address netip.Addr) ExternalLabels {
	var l ExternalLabels
	if a.optional.IP {
		l.IP = address
	}
	if a.places == nil {
		return l
	}
	place := a.places.Place(address)
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
