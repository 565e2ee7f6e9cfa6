// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"slices"
	"sync"

	"github.com/podmeter/podmeter/flows"
)

// registry are the attachments by point: the living, and those whose last
// packets are being drained.
type registry struct {
	mu sync.Mutex
	of map[uint32]*attachment
}

func newRegistry() *registry { return &registry{of: make(map[uint32]*attachment)} }

// with calls f with the attachment of a point, nil if there is none. f must not
// wait for anything.
func (r *registry) with(point uint32, f func(*attachment)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.of[point])
}

func (r *registry) put(a *attachment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[a.point] = a
}

// each calls f with every attachment, ordered by name. f must not wait for
// anything.
func (r *registry) each(f func(*attachment)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*attachment, 0, len(r.of))
	for _, a := range r.of {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *attachment) int { return cmp.Compare(a.name, b.name) })
	for _, a := range all {
		f(a)
	}
}

// points returns the points of the attachments that keep holds for.
func (r *registry) points(keep func(*attachment) bool) []uint32 {
	var points []uint32
	r.each(func(a *attachment) {
		if keep(a) {
			points = append(points, a.point)
		}
	})
	return points
}

// complete adds to an epoch what is known of its interfaces, and what passed
// them before the attachment. It returns the seeds that it added.
func (r *registry) complete(epoch *flows.Epoch) map[uint32]byDirection {
	seeds := make(map[uint32]byDirection)
	r.each(func(a *attachment) {
		epoch.Interfaces = append(epoch.Interfaces, a.domain())
		if a.seeds != (byDirection{}) {
			seeds[a.point] = a.seeds
		}
	})
	for i := range epoch.Totals {
		total := &epoch.Totals[i]
		total.Seeded = seeds[uint32(total.Point)][total.Direction]
	}
	return seeds
}

// seeded notes that seeds have been published.
func (r *registry) seeded(seeds map[uint32]byDirection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for point := range seeds {
		if a := r.of[point]; a != nil {
			a.seeds = byDirection{}
		}
	}
}

// drained notes that one more drain has passed since these points were left, and
// returns those that have nothing in any set any more; they are forgotten.
func (r *registry) drained(left []uint32) []uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var over []uint32
	for _, point := range left {
		a := r.of[point]
		if a.drains--; a.drains <= 0 {
			delete(r.of, point)
			over = append(over, point)
		}
	}
	return over
}
