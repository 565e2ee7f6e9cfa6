// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Exported is what the series of a pod have of one observation point, as far as the
// table's last batch. For every pod its series are the sum of what its points have and
// of what points that were forgotten had.
type Exported struct {
	Point Point
	Name  string
	// Attached is when counting began: an ifindex comes back. Gone is as in [Interface].
	Attached, Gone time.Time
	// Pod is nil while the point is unbound; it must not be changed.
	Pod *Pod
	// Counters are on the pod's series; Waiting will be once the pod is known.
	Counters, Waiting [Directions]Counters
	// Since is the start of the epoch of the first byte that waits, and Needs the addresses of
	// the pod that it waits for, by the best evidence that there is; nil if none are known.
	Since time.Time
	Needs []netip.Addr
	// Partial is whether Counters lack what was exported before the restore of a state
	// that did not have them.
	Partial bool
}

// exportedList returns what was exported of each point, and what waits of those that
// vanished unbound, in the order of their ids.
func (p *Publisher) exportedList() []Exported {
	list := make([]Exported, 0, len(p.points)+len(p.orphans))
	for _, pt := range slices.Concat(slices.Collect(maps.Values(p.points)), p.orphans) {
		list = append(list, pt.asExported())
	}
	slices.SortFunc(list, func(a, b Exported) int {
		return cmp.Or(cmp.Compare(a.Point, b.Point), a.Attached.Compare(b.Attached))
	})
	return list
}

func (pt *point) asExported() Exported {
	e := Exported{
		Point: pt.Point, Name: pt.Name, Attached: pt.Attached, Gone: pt.Gone, Pod: pt.pod,
		Counters: pt.exported, Partial: pt.partial,
	}
	if pt.waiting == nil {
		return e
	}
	for key, sum := range pt.waiting.totals {
		e.Waiting[key.direction].Add(sum.Counters)
		if !sum.IsZero() && (e.Since.IsZero() || sum.start.Before(e.Since)) {
			e.Since = sum.start
		}
	}
	if e.Waits() {
		e.Needs = pt.needs()
	}
	return e
}

// Waits reports whether there are bytes that wait for the point's pod.
func (e *Exported) Waits() bool { return e.Waiting != [Directions]Counters{} }

// needsLimit bounds the addresses of a point that are told.
const needsLimit = 8

// needs returns the addresses by which the point would be bound: those that the host routes to
// it, else those at its other end, else those that its packets showed.
func (pt *point) needs() (all []netip.Addr) {
	for _, evidence := range [][]netip.Addr{pt.Addresses, pt.PeerAddresses, slices.Collect(maps.Keys(pt.seen))} {
		for _, address := range evidence {
			if significant(address) && !slices.Contains(all, address) {
				all = append(all, address)
			}
		}
		if len(all) > 0 {
			break
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all[:min(len(all), needsLimit)]
}

// retireExported hands over to a pod's account what was exported of a point that is
// about to be forgotten.
func (b *Batch) retireExported(pt *point) {
	sum := b.earlier[pt.pod]
	for d := range sum {
		sum[d].Add(pt.exported[d])
	}
	b.earlier[pt.pod] = sum
}

// Exported returns what the series of each pod are made of as of the last batch: the
// part of each observation point, and in no order what points had that are forgotten.
func (t *Table) Exported() (points []Exported, earlier []Series[NoLabels]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.exported), t.earlierSeries()
}

// setExported takes what is exported of each point outside of a batch.
func (t *Table) setExported(points []Exported) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.exported = points
}

// earlierSeries returns what forgotten points had, of the accounts that have some. The
// caller holds the lock.
func (t *Table) earlierSeries() (all []Series[NoLabels]) {
	for n, a := range t.names {
		if a.earlier != ([Directions]Counters{}) {
			all = append(all, Series[NoLabels]{Namespace: n.namespace, Pod: n.pod, Counters: a.earlier})
		}
	}
	return all
}

// restoreEarlier takes what a state says of forgotten points. One of before that was
// recorded has none: all of its series are then taken for theirs.
func (a *account) restoreEarlier(earlier *[Directions]Counters, total [Directions]Counters) {
	if earlier == nil {
		earlier = &total
	}
	for d := range a.earlier {
		a.earlier[d].Add(earlier[d])
	}
}
