// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"strings"

	"github.com/podmeter/podmeter/flows"
)

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

// place tells the rows of external peers apart.
type place struct{ Country, City, Latitude, Longitude, ASN, Organization string }

func (p place) compare(o place) int {
	return cmp.Or(strings.Compare(p.Country, o.Country), strings.Compare(p.City, o.City), strings.Compare(p.ASN, o.ASN),
		strings.Compare(p.Organization, o.Organization), strings.Compare(p.Latitude, o.Latitude), strings.Compare(p.Longitude, o.Longitude))
}

// rowsOf adds up the series of a family to rows, each with what its series have grown
// since.
func rowsOf[L, K comparable](all []flows.Series[L], since map[uint64]pair, keyOf func(*flows.Series[L]) K) map[K]row {
	rows := make(map[K]row, len(all))
	for i := range all {
		key := keyOf(&all[i])
		sum := rows[key]
		sum.add(row{bytesOf(&all[i]), grownOf(&all[i], since)})
		rows[key] = sum
	}
	return rows
}

func podOf(s *flows.Series[flows.NoLabels]) pod { return pod{s.Namespace, s.Pod} }

func placeOf(s *flows.Series[flows.ExternalLabels]) place {
	l := &s.Labels
	return place{l.Country, l.City, l.Latitude, l.Longitude, l.ASN, l.Organization}
}

func edgeOf(s *flows.Series[flows.FlowLabels]) edge {
	l := &s.Labels
	return edge{
		Local:    party{flows.PeerPod, s.Namespace, cmp.Or(l.Workload.Name, s.Pod)},
		Peer:     party{l.PeerKind, l.PeerNamespace, l.Peer},
		Locality: l.Locality,
	}
}

// ends are an edge as its two ends have it, each with whether it has it at all.
type ends struct {
	local, peer     row
	byLocal, byPeer bool
}

// merged is of each direction what its sender has sent: what is received is the same
// packets again, and is taken where the sender is not metered (any more).
func (e *ends) merged() row {
	r := e.local
	if e.byPeer {
		r.take(flows.Receive, &e.peer)
	}
	if !e.byLocal {
		r.take(flows.Transmit, &e.peer)
	}
	return r
}

// edgesOf adds up flows to edges. One between pods of this node is always that of its
// smaller party, whichever of them has it: so it stays a single row, and the same one,
// also when one end's series begin later or end earlier.
func edgesOf(s *flows.Snapshot, since map[uint64]pair) map[edge]row {
	metered := make(map[pod]bool, len(s.Pods))
	for i := range s.Pods {
		metered[podOf(&s.Pods[i])] = true
	}
	all := make(map[edge]ends, len(s.Flows))
	for i := range s.Flows {
		f := &s.Flows[i]
		e, grown := edgeOf(f), row{bytesOf(f), grownOf(f, since)}
		turned := false
		if isHere(&f.Labels, metered) {
			e.Locality = flows.LocalitySameNode
			switch order := e.Local.compare(e.Peer); {
			case order == 0: // among themselves: all that is received is sent here too
				grown.Total[flows.Receive], grown.Grown[flows.Receive] = 0, 0
			case order > 0:
				turned = true
				e.Local, e.Peer = e.Peer, e.Local
				grown.turn()
			}
		}
		both := all[e]
		both.add(grown, turned)
		all[e] = both
	}
	rows := make(map[edge]row, len(all))
	for e, both := range all {
		rows[e] = both.merged()
	}
	return rows
}

func (e *ends) add(r row, byPeer bool) {
	if byPeer {
		e.peer.add(r)
		e.byPeer = true
		return
	}
	e.local.add(r)
	e.byLocal = true
}

// isHere tells whether a peer is a pod of this node. Where pods are known without their
// nodes, as those of a static file may be, it is if it is a pod that is metered: that is
// certain of one that is its own workload, which rows of an earlier build have without a type.
func isHere(l *flows.FlowLabels, metered map[pod]bool) bool {
	switch {
	case l.PeerKind != flows.PeerPod:
		return false
	case l.Locality != flows.LocalityUnknown:
		return l.Locality == flows.LocalitySameNode
	case l.PeerPod != "":
		return metered[pod{l.PeerNamespace, l.PeerPod}]
	}
	own := l.PeerWorkloadType == flows.BarePod || l.PeerWorkloadType == ""
	return own && metered[pod{l.PeerNamespace, l.Peer}]
}
