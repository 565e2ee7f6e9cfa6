// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// evidence orders what binds interfaces, the best first. All interfaces are asked about by
// one kind before any is by the next, so that nobody's word comes before the node's.
type evidence uint8

const (
	// byNode is what the node's administration says: a file, the result of the CNI
	// plugins, routes to the interface alone, its network namespace.
	byNode evidence = iota
	// byOtherEnd is what addresses the other end has, as the kernel tells. They are those
	// that the CNI plugin gave it unless the pod may administer its network.
	byOtherEnd
	// bySender is what addresses packets show.
	bySender
)

// Bound is what is known of all interfaces at one moment: which pods have some, or had, and
// who else claims an address.
type Bound struct {
	evidence evidence
	// early says that the flows of the epoch have not been looked at.
	early      bool
	uids       map[string]bool
	namespaces map[int]tenant // by PeerNamespace
	past       map[string]time.Time
	// routed are the interfaces that an address is routed to. Of those whose pod is not
	// known, held are those that have it at their other end, shown those that packets from it
	// came from.
	routed, held, shown map[netip.Addr][]*point
}

// tenant is the pod of the living interfaces that show the same namespace id.
type tenant struct {
	pod   *Pod      // nil if they are of two pods: one of them is about to go
	since time.Time // when the eldest was attached
}

// Has reports whether a pod is bound to an interface.
func (b *Bound) Has(pod *Pod) bool { return b.uids[pod.UID] }

// had reports whether a pod was bound to an interface before.
func (b *Bound) had(pod *Pod) bool {
	_, had := b.past[pod.UID]
	return had
}

// contested reports whether an address is another interface's by what the kernel knows.
func (b *Bound) contested(i *Interface, address netip.Addr, now time.Time) bool {
	return besides(b.routed[address], i, now) || besides(b.held[address], i, now)
}

// shownByOthers reports whether packets of another interface showed an address.
func (b *Bound) shownByOthers(i *Interface, address netip.Addr, now time.Time) bool {
	return besides(b.shown[address], i, now)
}

// besides reports whether one of the points is another than an interface, and was there
// together with it: still, if the interface is there, as a pod that is there has its own.
func besides(points []*point, i *Interface, now time.Time) bool {
	since, until := i.life(now)
	return slices.ContainsFunc(points, func(pt *point) bool {
		from, to := pt.life(now)
		same := pt.Point == i.Point && pt.Attached.Equal(i.Attached)
		gone := i.Gone.IsZero() && !pt.Gone.IsZero()
		return !same && !gone && from.Before(until) && since.Before(to)
	})
}

// newBound takes note of what is known of points. past is when pods had their last
// interface that are bound to none now.
func newBound(points map[Point]*point, orphans []*point, past map[string]time.Time) *Bound {
	b := &Bound{
		uids: make(map[string]bool), namespaces: make(map[int]tenant), past: past,
		routed: make(map[netip.Addr][]*point), held: make(map[netip.Addr][]*point), shown: make(map[netip.Addr][]*point),
	}
	for _, pt := range points {
		b.note(pt)
	}
	for _, pt := range orphans {
		b.note(pt)
	}
	return b
}

func (b *Bound) note(pt *point) {
	claim := func(of map[netip.Addr][]*point, addresses iter.Seq[netip.Addr]) {
		for address := range addresses {
			of[address] = append(of[address], pt)
		}
	}
	claim(b.routed, slices.Values(pt.Addresses))
	if pt.pod != nil {
		b.add(pt.Interface, pt.pod)
		return
	}
	claim(b.held, slices.Values(pt.PeerAddresses))
	claim(b.shown, maps.Keys(pt.seen))
}

func (b *Bound) add(i Interface, pod *Pod) {
	b.uids[pod.UID] = true
	if i.PeerNamespace < 0 || !i.Gone.IsZero() {
		return
	}
	t, known := b.namespaces[i.PeerNamespace]
	switch {
	case !known:
		t = tenant{pod, i.Attached}
	case t.pod == nil || t.pod.UID != pod.UID:
		t.pod = nil
	case i.Attached.Before(t.since):
		t.since = i.Attached
	}
	b.namespaces[i.PeerNamespace] = t
}

// neighbour returns the pod of another interface in the network namespace of
// this one.
func (b *Bound) neighbour(i Interface, now time.Time) *Pod {
	t := b.namespaces[i.PeerNamespace]
	if b.early || !i.Gone.IsZero() || now.Sub(i.Attached) < namespaceAge || now.Sub(t.since) < namespaceAge {
		return nil
	}
	return t.pod
}

// namespaceAge is for how long two interfaces must have shown the same namespace
// id to be of one pod. The kernel frees the id of a namespace that ends before it
// removes its interfaces (cleanup_net in net/core/net_namespace.c): for a moment
// they show the id of another one.
const namespaceAge = 10 * time.Second
