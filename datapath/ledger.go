// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
)

// settleAfter is how far two equal readings of the ledger must lie apart.
const settleAfter = 10 * time.Millisecond

// byDirection are counters indexed by flows.Direction.
type byDirection [flows.Directions]flows.Counters

func (b byDirection) sub(o byDirection) byDirection {
	for d := range b {
		b[d] = b[d].Sub(o[d])
	}
	return b
}

func (b byDirection) add(o byDirection) byDirection {
	for d := range b {
		b[d].Add(o[d])
	}
	return b
}

// covers reports whether nothing in b is less than in o.
func (b byDirection) covers(o byDirection) bool {
	for d := range b {
		if b[d].Bytes < o[d].Bytes || b[d].Packets < o[d].Packets {
			return false
		}
	}
	return true
}

// ledgerOf returns the interface's own counters, as the pod sees directions.
func ledgerOf(l netlink.Link) (counters byDirection) {
	s := l.Attrs().Statistics
	if s == nil {
		return counters
	}
	counters[flows.Transmit] = flows.Counters{Bytes: s.RxBytes, Packets: s.RxPackets}
	counters[flows.Receive] = flows.Counters{Bytes: s.TxBytes, Packets: s.TxPackets}
	return counters
}

// reading is one look at both sides: the interface's own counters before and
// after ours were read.
type reading struct {
	first, second, ours byDirection
	at                  time.Time
	device              string // whose counters they are, see deviceOf
	// looked is whether it was looked who is before us, where it matters, and
	// ahead who is.
	looked bool
	ahead  [flows.Directions][]string
}

// take sets what a link told before and after ours were read. If the ifindex has
// become another's meanwhile, the reading is nobody's.
func (r *reading) take(first, second netlink.Link, at time.Time) {
	r.first, r.second, r.at = ledgerOf(first), ledgerOf(second), at
	if r.device = deviceOf(first); r.device != deviceOf(second) {
		r.device = "none"
	}
}

// quiet reports that no packet came while the reading was taken.
func (r *reading) quiet() bool { return r.first == r.second }

// ledger compares an interface's own counters with ours.
//
// A packet can be counted by one side and not yet by the other for a moment. So
// nothing follows from a single reading: what the interface has beyond ours is
// believed once two quiet ones settleAfter apart agree on it.
type ledger struct {
	// base is what of the interface's counters was published by attachments
	// before this one.
	base byDirection
	// unmetered are the directions that have no program of ours: their bytes are
	// known from the ledger alone.
	unmetered [flows.Directions]bool

	settled bool
	// before passed before the programs were attached, without the base.
	before byDirection
	// last is the newest reading.
	last reading
	// difference is the interface's packets minus ours since the attachment.
	difference [flows.Directions]int64

	// differenceBytes are the bytes of the same, of which they may be all: the bytes that
	// two quiet readings told one after the other.
	differenceBytes [flows.Directions]int64

	candidate   byDirection
	candidateAt time.Time
	newest      [flows.Directions]int64 // difference by the last reading alone
	newestBytes [flows.Directions]int64 // differenceBytes by the last quiet reading alone

	shadow
}

// read takes a reading and returns what became known by it and has to be
// published besides our own counts: what came before the attachment, what went
// where we have no program, and what somebody hid from our programs.
func (l *ledger) read(r reading) (known byDirection) {
	defer func() { l.last = r }()
	if l.settled {
		return l.follow(&r)
	}
	if !r.quiet() {
		return known
	}
	beyond := r.first.sub(r.ours).sub(l.base)
	nothing := r.first == byDirection{} // has ever passed, so nothing before us
	if !nothing && !l.agreed(beyond, r.at) {
		return known
	}
	return l.settle(beyond)
}

// follow takes a reading after the ledger has settled.
func (l *ledger) follow(r *reading) byDirection {
	known := l.hides(r)
	l.compare(r)
	if r.looked {
		l.judge(r, known)
	}
	return known.add(l.close(r)).add(l.beside(r.second.sub(l.last.second)))
}

// agreed reports whether a quiet reading agrees with an earlier one on what the
// interface has beyond ours.
func (l *ledger) agreed(beyond byDirection, at time.Time) bool {
	if l.candidateAt.IsZero() || beyond != l.candidate {
		l.candidate, l.candidateAt = beyond, at
		return false
	}
	return at.Sub(l.candidateAt) >= settleAfter
}

// settle takes what the interface has beyond ours as what came before us; it
// is never below 0.
func (l *ledger) settle(beyond byDirection) byDirection {
	l.settled = true
	for d, c := range beyond {
		if int64(c.Bytes) >= 0 && int64(c.Packets) >= 0 {
			l.before[d] = c
		}
		l.newest[d] = int64(c.Packets - l.before[d].Packets)
		l.newestBytes[d] = int64(c.Bytes - l.before[d].Bytes)
	}
	l.difference, l.differenceBytes = l.newest, l.newestBytes
	return l.before
}

// abandon settles with what is known when no more readings can be taken.
func (l *ledger) abandon() byDirection {
	if l.settled {
		return byDirection{}
	}
	return l.settle(l.candidate)
}

// beside keeps of what the interface counted since the last reading what went
// where we have no program.
func (l *ledger) beside(grown byDirection) byDirection {
	for d := range grown {
		if !l.unmetered[d] {
			grown[d] = flows.Counters{}
		}
	}
	return grown
}

// compare notes by how many packets the interface and we differ: the least that
// the last two readings both tell. Packets that came while a reading was taken
// may be in ours or not.
func (l *ledger) compare(r *reading) {
	for d := range l.difference {
		if l.unmetered[d] {
			continue
		}
		explained := l.explained(r.ours)[d]
		now := nearest(int64(r.first[d].Packets-explained.Packets), int64(r.second[d].Packets-explained.Packets))
		l.difference[d] = common(l.newest[d], now)
		l.newest[d] = now
		if r.first[d] == r.second[d] {
			l.compareBytes(d, int64(r.first[d].Bytes-explained.Bytes))
		}
	}
}

// compareBytes takes the difference in bytes of a quiet reading.
func (l *ledger) compareBytes(d int, now int64) {
	if now == l.newestBytes[d] {
		l.differenceBytes[d] = now
	}
	l.newestBytes[d] = now
}

// nearest returns what is nearest to 0 between low and high.
func nearest(low, high int64) int64 {
	switch {
	case low > 0:
		return low
	case high < 0:
		return high
	}
	return 0
}

// common is the part of a difference that a and b share.
func common(a, b int64) int64 {
	switch {
	case a > 0 && b > 0:
		return min(a, b)
	case a < 0 && b < 0:
		return max(a, b)
	}
	return 0
}
