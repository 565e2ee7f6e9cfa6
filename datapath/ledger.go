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

// reading is one look at an interface's own counters and at ours. It counts only
// if the former were the same before and after the latter were read, so that no
// packet came meanwhile.
type reading struct {
	counters, ours byDirection
	at             time.Time
}

// ledger compares an interface's own counters with ours.
//
// A packet can be counted by one side and not yet by the other for a moment. So
// nothing follows from a single reading: what the interface has beyond ours is
// believed once two readings settleAfter apart agree on it.
type ledger struct {
	settled bool
	// before passed before the programs were attached.
	before byDirection
	// last is the newest reading.
	last reading
	// difference is the interface's packets minus ours since the attachment.
	difference [flows.Directions]int64

	candidate   byDirection
	candidateAt time.Time
	newest      [flows.Directions]int64 // difference by the last reading alone
}

// read takes a reading. It reports whether the ledger settled by it.
func (l *ledger) read(r reading) bool {
	l.last = r
	beyond := r.counters.sub(r.ours)
	if l.settled {
		l.compare(beyond)
		return false
	}
	if l.candidateAt.IsZero() || beyond != l.candidate {
		l.candidate, l.candidateAt = beyond, r.at
		return false
	}
	if r.at.Sub(l.candidateAt) < settleAfter {
		return false
	}
	l.settle(beyond)
	return true
}

// settle takes what the interface has beyond ours as what came before us; it
// is never below 0.
func (l *ledger) settle(beyond byDirection) {
	l.settled = true
	for d, c := range beyond {
		if int64(c.Bytes) >= 0 && int64(c.Packets) >= 0 {
			l.before[d] = c
		}
		l.newest[d] = int64(c.Packets - l.before[d].Packets)
	}
	l.difference = l.newest
}

// compare notes by how many packets the interface and we differ: as many as the
// last two readings both tell.
func (l *ledger) compare(beyond byDirection) {
	for d, c := range beyond {
		now := int64(c.Packets - l.before[d].Packets)
		l.difference[d] = common(l.newest[d], now)
		l.newest[d] = now
	}
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
