// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"slices"
	"time"
)

// OwnAddresses knows the addresses that pods have. It is safe for concurrent use.
type OwnAddresses interface {
	// Foreign reports whether an address was none of the pod's from first to last. It is
	// not while no address of the pod is known, nor of a pod that has none of its own.
	Foreign(pod *Pod, address netip.Addr, first, last time.Time) bool
}

// shown is what packets from one address were, of an interface whose pod is not known.
type shown struct {
	Counters
	start       time.Time // of the epoch of the first one
	first, last time.Time
}

func (s *shown) add(record *Record, start time.Time) {
	if s.IsZero() {
		s.start, s.first, s.last = start, record.First, record.Last
	}
	s.Counters.Add(record.Counters)
	if record.First.Before(s.first) {
		s.first = record.First
	}
	if record.Last.After(s.last) {
		s.last = record.Last
	}
}

// ownLimit is how many of a pod's own addresses are remembered while an epoch is read.
const ownLimit = 4

// foreign reports whether a pod sent from an address that is not its own. It may have some
// that its status does not tell: those that the host routes to its interface alone, and those
// at the other end of it that are nobody else's. Link-local and multicast addresses,
// loopback's and the unspecified one, which every pod uses, are nobody's.
func (p *Publisher) foreign(pt *point, source netip.Addr, first, last time.Time) bool {
	if p.options.Addresses == nil || pt.PodUID != "" || !source.IsValid() || slices.Contains(pt.own, source) {
		return false
	}
	kind := KindOf(source)
	nobodys := kind == PeerLinkLocal || kind == PeerMulticast || slices.Contains(pt.Addresses, source)
	if !nobodys && p.options.Addresses.Foreign(pt.pod, source, first, last) && !p.atOtherEnd(pt, source, first, last) {
		return true
	}
	if len(pt.own) < ownLimit {
		pt.own = append(pt.own, source)
	}
	return false
}

// atOtherEnd reports whether the other end of an interface has an address of which
// nobody is known to have it.
func (p *Publisher) atOtherEnd(pt *point, address netip.Addr, first, last time.Time) bool {
	if !slices.Contains(pt.PeerAddresses, address) {
		return false
	}
	owner := p.options.Directory.Owner(Query{Address: address, First: first, Last: last})
	switch owner.Kind {
	case PeerPod, PeerService, PeerNode, PeerUnattributed:
		return owner.Announced
	}
	return true
}

// countForeign adds what a bound point sent from an address that is not its pod's.
func (p *Publisher) countForeign(batch *Batch, pt *point, record *Record) {
	if record.Key.Direction == Transmit && p.foreign(pt, record.Key.Source, record.First, record.Last) {
		batch.addForeign(pt.pod, amount{record.Counters, batch.Start})
	}
}

// countShown adds what a point sent so before it was bound.
func (p *Publisher) countShown(batch *Batch, pt *point) {
	for source, s := range pt.seen {
		if !s.IsZero() && p.foreign(pt, source, s.first, s.last) {
			batch.addForeign(pt.pod, amount{s.Counters, s.start})
		}
	}
}

func (b *Batch) addForeign(pod *Pod, a amount) {
	sum := b.foreign[pod]
	sum.add(a)
	b.foreign[pod] = sum
}

// ShownState is what packets from one address were, see [PointState].
type ShownState struct {
	Address            netip.Addr
	Counters           Counters
	Start, First, Last time.Time
}

func shownState(seen map[netip.Addr]shown) (all []ShownState) {
	for address, s := range seen {
		all = append(all, ShownState{address, s.Counters, s.start, s.first, s.last})
	}
	return all
}

func (s *ShownState) shown() shown { return shown{s.Counters, s.Start, s.First, s.Last} }
