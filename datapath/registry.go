// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/podmeter/podmeter/flows"
)

// registry are the attachments by point: the living, and those whose last
// packets are being drained.
type registry struct {
	mu sync.Mutex
	of map[uint32]*attachment
	// accounted is, for devices that were let go of and are still there, what of
	// their own counters needs no seeding any more.
	accounted map[uint32]past
	// departed is the same for devices that may have moved to another network
	// namespace, from where they can come back with any ifindex.
	departed map[string]past
	// remembered are points that were forgotten and that the last checkpoint may know.
	remembered map[uint32]bool
}

// past is what was published of a device.
type past struct {
	device   string
	counters byDirection
	bypass   bypass
}

// maxDeparted bounds how many devices that left are remembered.
const maxDeparted = 1024

func newRegistry() *registry {
	return &registry{
		of: make(map[uint32]*attachment), accounted: make(map[uint32]past), departed: make(map[string]past),
		remembered: make(map[uint32]bool),
	}
}

// with calls f with the attachment of a point, nil if there is none. f must not
// wait for anything.
func (r *registry) with(point uint32, f func(*attachment)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.of[point])
}

// lives reports whether a point has a living attachment.
func (r *registry) lives(point uint32) (lives bool) {
	r.with(point, func(a *attachment) { lives = a != nil && a.living() })
	return lives
}

// taken reports whether a point is an attachment's, or would be taken for that of
// an earlier one: a checkpoint that knows it has what that had counted.
func (r *registry) taken(point uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of[point] != nil || r.remembered[point]
}

// put adds an attachment that an earlier meter made.
func (r *registry) put(a *attachment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[a.point] = a
}

// enter adds an attachment that is about to be made to a device with these
// counters. What was published of the device before is not seeded again; the rest
// is, as a gap.
func (r *registry) enter(a *attachment, now byDirection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, known := r.departed[a.device]
	if past, ok := r.accounted[a.point]; ok && sameDevice(past.device, a.device) {
		was, known = past, true
	}
	if a.ledger.settled { // an uplink, which is not compared with its counters
		a.resumed = known
	} else if known && now.covers(was.counters) { // else it only looks like the one before
		a.ledger.base, a.seeded, a.resumed = was.counters, true, true
		a.bypass.base, a.bypass.known = was.bypass.settled(), was.bypass.known
	} else if a.seeded {
		a.bypass.known = true // of a new device all of it is to be published
	}
	a.ledger.last.second = now // until there is a reading
	delete(r.accounted, a.point)
	delete(r.departed, a.device)
	r.of[a.point] = a
}

// hadDevice reports whether the device with this index had an attachment before,
// or has one.
func (r *registry) hadDevice(point uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, had := r.accounted[point]
	a := r.of[point]
	return had || a != nil && !a.vanished
}

// withdraw takes back an attachment that failed and has counted nothing.
func (r *registry) withdraw(point uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.of[point]; a.resumed {
		r.accounted[point] = past{a.device, a.ledger.base, a.bypass}
	}
	delete(r.of, point)
}

// vanished notes that a device is gone: its index may be another's.
func (r *registry) vanished(point uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.accounted, point)
	if a := r.of[point]; a != nil {
		a.vanished = true
	}
}

// forgetAbsent forgets what was published of devices that are not there any more.
func (r *registry) forgetAbsent(absent func(point uint32) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.accounted, func(point uint32, _ past) bool { return absent(point) })
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

// complete adds to an epoch what is known of its interfaces, and what is known
// of them from their ledgers alone. It returns the seeds that it added.
func (r *registry) complete(epoch *flows.Epoch) map[uint32]byDirection {
	waiting := make(map[uint32]byDirection)
	r.each(func(a *attachment) {
		epoch.Interfaces = append(epoch.Interfaces, a.domain())
		waiting[a.point] = a.seeds
	})
	for i := range epoch.Totals {
		total := &epoch.Totals[i]
		total.Seeded = waiting[uint32(total.Point)][total.Direction]
	}
	return seedsOf(epoch)
}

// seeded notes that seeds have been published, with a checkpoint that knows no more
// than what is there now. More may have come meanwhile.
func (r *registry) seeded(seeds map[uint32]byDirection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.remembered)
	for point, published := range seeds {
		if a := r.of[point]; a != nil {
			a.seeds = a.seeds.sub(published)
		}
	}
}

// drained notes that one more drain has passed since these points were left, and
// returns those that have nothing in any set any more.
func (r *registry) drained(left []uint32) []uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var over []uint32
	for _, point := range left {
		a := r.of[point]
		if a.drains--; a.drains <= 0 && a.seeds == (byDirection{}) {
			over = append(over, point)
		}
	}
	return over
}

// forget removes an attachment, of which programs counted so much in all. Its
// point may be another's from then on.
func (r *registry) forget(point uint32, counted byDirection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.of[point]
	r.remembered[point] = true
	delete(r.of, point)
	if a == nil {
		return
	}
	if !a.vanished {
		r.accounted[point] = past{a.device, a.accounted(counted), a.bypass}
	} else if a.mayReturn {
		r.depart(past{a.device, a.accounted(counted), a.bypass})
	}
}

// depart remembers a device that left, in the place of any other if there are too
// many. The caller holds the lock.
func (r *registry) depart(p past) {
	for other := range r.departed {
		if len(r.departed) < maxDeparted {
			break
		}
		delete(r.departed, other)
	}
	r.departed[p.device] = p
}
