// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"strings"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// pair is bytes by [flows.Direction].
type pair [flows.Directions]uint64

func (p *pair) add(o pair) {
	for d := range p {
		p[d] += o[d]
	}
}

func (p pair) sum() uint64 { return p[flows.Transmit] + p[flows.Receive] }

// grown is what a counter has grown since it was before; one that is less than that
// has begun anew.
func (p pair) grown(before pair) (by pair) {
	for d := range p {
		by[d] = p[d]
		if p[d] >= before[d] {
			by[d] -= before[d]
		}
	}
	return by
}

// pod tells the rows of pods apart.
type pod struct{ Namespace, Name string }

func (p pod) compare(o pod) int {
	return cmp.Or(strings.Compare(p.Namespace, o.Namespace), strings.Compare(p.Name, o.Name))
}

// party is one of the two ends of an edge.
type party struct {
	Kind            flows.PeerKind
	Namespace, Name string
}

func (p party) compare(o party) int {
	return cmp.Or(cmp.Compare(p.Kind, o.Kind), strings.Compare(p.Namespace, o.Namespace), strings.Compare(p.Name, o.Name))
}

// edge is between a workload of this node and its peer.
type edge struct {
	Local, Peer party
	Locality    flows.Locality
}

func (e edge) compare(o edge) int {
	return cmp.Or(e.Local.compare(o.Local), e.Peer.compare(o.Peer), cmp.Compare(e.Locality, o.Locality))
}

// mirror is the same edge as its other end has it.
func (e edge) mirror() edge { return edge{e.Peer, e.Local, e.Locality} }

// place tells the rows of external peers apart.
type place struct{ Country, City, Latitude, Longitude, ASN, Organization string }

func (p place) compare(o place) int {
	return cmp.Or(strings.Compare(p.Country, o.Country), strings.Compare(p.City, o.City), strings.Compare(p.ASN, o.ASN),
		strings.Compare(p.Organization, o.Organization), strings.Compare(p.Latitude, o.Latitude), strings.Compare(p.Longitude, o.Longitude))
}

// tally is a snapshot, added up to what is shown.
type tally struct {
	at     time.Time
	pods   map[pod]pair
	edges  map[edge]pair
	places map[place]pair
	books  books
}

func newTally(s *flows.Snapshot) *tally {
	t := &tally{
		at: s.End, pods: make(map[pod]pair, len(s.Pods)), edges: make(map[edge]pair, len(s.Flows)),
		places: make(map[place]pair, len(s.Externals)), books: newBooks(s),
	}
	for i := range s.Pods {
		add(t.pods, pod{s.Pods[i].Namespace, s.Pods[i].Pod}, bytesOf(&s.Pods[i]))
	}
	for i := range s.Flows {
		add(t.edges, edgeOf(&s.Flows[i]), bytesOf(&s.Flows[i]))
	}
	t.mergeMirrors()
	for i := range s.Externals {
		l := &s.Externals[i].Labels
		add(t.places, place{l.Country, l.City, l.Latitude, l.Longitude, l.ASN, l.Organization}, bytesOf(&s.Externals[i]))
	}
	return t
}

func add[K comparable](to map[K]pair, key K, bytes pair) {
	sum := to[key]
	sum.add(bytes)
	to[key] = sum
}

func bytesOf[L any](s *flows.Series[L]) (bytes pair) {
	for d := range bytes {
		bytes[d] = s.Counters[d].Bytes
	}
	return bytes
}

func edgeOf(s *flows.Series[flows.FlowLabels]) edge {
	l := &s.Labels
	return edge{
		Local:    party{flows.PeerPod, s.Namespace, cmp.Or(l.Workload.Name, s.Pod)},
		Peer:     party{l.PeerKind, l.PeerNamespace, l.Peer},
		Locality: l.Locality,
	}
}

// mergeMirrors makes one edge of the two that pods of this node have of each other: each
// direction is what its sender has sent. What is received is the same packets again.
func (t *tally) mergeMirrors() {
	for e, bytes := range t.edges {
		if e.Peer.Kind != flows.PeerPod || e.Locality != flows.LocalitySameNode {
			continue
		}
		switch order := e.Local.compare(e.Peer); {
		case order == 0:
			t.edges[e] = pair{flows.Transmit: bytes[flows.Transmit]}
		case order > 0:
			other, both := t.edges[e.mirror()]
			if !both {
				continue // only this end is metered
			}
			other[flows.Receive] = bytes[flows.Transmit]
			t.edges[e.mirror()] = other
			delete(t.edges, e)
		}
	}
}
