// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// bindEarly binds points by what is known without their flows, before these are looked
// at: the container of what waits for its pod is not known. What packets show is evidence
// when all of the epoch is known.
func (p *Publisher) bindEarly(batch *Batch) {
	p.bindBy(batch, true, byOtherEnd)
}

// bind asks for the pods of interfaces that have none yet, and publishes what
// waited for them, whole.
func (p *Publisher) bind(batch *Batch) {
	p.bindBy(batch, false, bySender)
}

// bindBy asks for the pods of all interfaces by each kind of evidence, the last included.
func (p *Publisher) bindBy(batch *Batch, early bool, last evidence) {
	waiting := p.unbound(early)
	if len(waiting) == 0 {
		return
	}
	bound := newBound(p.points, p.orphans, p.past)
	for bound.early = early; bound.evidence <= last; bound.evidence++ {
		for _, pt := range waiting {
			if pt.pod == nil && p.adopt(pt, bound, batch) {
				bound.add(pt.Interface, pt.pod)
			}
		}
	}
	p.orphans = slices.DeleteFunc(p.orphans, func(pt *point) bool {
		if pt.pod == nil {
			return false
		}
		batch.retireExported(pt)
		p.past[pt.pod.UID] = batch.End
		return true
	})
}

// unbound returns the points without a pod in the order of their ids; early those alone
// that are there, else the orphans too.
func (p *Publisher) unbound(early bool) (all []*point) {
	for _, pt := range p.points {
		if pt.pod == nil && !(early && !pt.Gone.IsZero()) {
			all = append(all, pt)
		}
	}
	slices.SortFunc(all, func(a, b *point) int { return cmp.Compare(a.Point, b.Point) })
	if early {
		return all
	}
	return append(all, p.orphans...)
}

// adopt binds a point to its pod if that is known.
func (p *Publisher) adopt(pt *point, bound *Bound, batch *Batch) bool {
	var seen []netip.Addr
	if bound.evidence == bySender {
		seen = slices.Collect(maps.Keys(pt.seen))
	}
	pt.pod = p.options.Binder.Bind(pt.Interface, seen, bound)
	if pt.pod == nil {
		return false
	}
	p.options.Logger.Debug("bound", "interface", pt.Name, "namespace", pt.pod.Namespace, "pod", pt.pod.Name)
	for key, sum := range pt.waiting.totals {
		batch.addTotal(pt.pod, key.direction, sum)
		pt.exported[key.direction].Add(sum.Counters)
	}
	for key, at := range pt.waiting.rows {
		batch.addRow(rowKey{pod: pt.pod, direction: key.direction, source: key.source}, pt.waiting.sums[at])
	}
	p.countShown(batch, pt)
	pt.waiting, pt.stored, pt.seen = nil, nil, nil
	return true
}
