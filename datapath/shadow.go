// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"time"

	"github.com/podmeter/podmeter/flows"
)

// shadow is what of an interface's own counters somebody before us on a hook
// keeps from our programs. Arrays are indexed by flows.Direction.
//
// What the interface had counted some time ago and we have not counted by now,
// we never will: it is hidden if somebody was before us, and can be published at
// once. While packets flow that lags behind by what we count in that time. So
// once nobody is before us any more, the rest is found as that before the
// attachment is: two quiet readings have to agree on it.
type shadow struct {
	// hidden is what was published because of it since the attachment.
	hidden byDirection
	// apart is what the interface had beyond us while nobody was before us: that
	// stays a difference.
	apart byDirection
	// ahead says who was before us at the last look, as far as it mattered.
	ahead [flows.Directions][]string
	// shadowed is whether he hides packets; closing is whether he has gone and
	// the rest of what he hid is being looked for.
	shadowed, closing [flows.Directions]bool
}

// explained returns what the interface's counters have a reason for, given ours.
func (l *ledger) explained(ours byDirection) byDirection {
	return ours.add(l.before).add(l.base).add(l.hidden)
}

// suspects returns the directions of which it matters now who is before us.
func (l *ledger) suspects(r *reading) (suspects [flows.Directions]bool) {
	beyond := r.second.sub(l.explained(r.ours)).sub(l.apart)
	for d := range suspects {
		suspects[d] = !l.unmetered[d] && (!l.settled || l.shadowed[d] || int64(beyond[d].Packets) > 0)
	}
	return suspects
}

// hides takes note of what has become hidden, and returns it.
func (l *ledger) hides(r *reading) (known byDirection) {
	if r.at.Sub(l.last.at) < settleAfter {
		return known
	}
	beyond := l.last.second.sub(l.explained(r.ours)).sub(l.apart)
	for d := range known {
		grown := surplus(beyond[d])
		if l.unmetered[d] || grown.Packets == 0 {
			continue
		}
		switch {
		case l.covered(d, r):
			l.hide(d, grown)
			known[d] = grown
		case r.looked: // and nobody is there
			l.apart[d].Add(grown)
		}
	}
	return known
}

// covered reports whether somebody was before us while the interface counted
// what it had at the last reading.
func (l *ledger) covered(d int, r *reading) bool {
	return l.closing[d] || l.shadowed[d] || len(l.ahead[d]) > 0 || len(r.ahead[d]) > 0
}

func (l *ledger) hide(d int, grown flows.Counters) {
	l.hidden[d].Add(grown)
	l.newest[d] -= int64(grown.Packets)
	l.difference[d] -= int64(grown.Packets)
	l.newestBytes[d] -= int64(grown.Bytes)
	l.differenceBytes[d] -= int64(grown.Bytes)
}

// judge decides who is shadowed by a reading for which it was looked who is
// before us. known is what has just become hidden.
func (l *ledger) judge(r *reading, known byDirection) {
	for d, was := range l.shadowed {
		hides := was || known[d].Packets > 0 || l.difference[d] > int64(l.apart[d].Packets)
		l.shadowed[d] = len(r.ahead[d]) > 0 && hides
		if was && !l.shadowed[d] {
			l.closing[d], l.candidateAt = true, time.Time{}
		}
	}
	l.ahead = r.ahead
}

// close looks for the rest of what was hidden in the directions in which nobody
// is before us any more, and returns it when two readings agree.
func (l *ledger) close(r *reading) (known byDirection) {
	if l.closing == [flows.Directions]bool{} || !r.quiet() {
		return known
	}
	all := r.first.sub(r.ours).sub(l.before).sub(l.base).sub(l.apart) // that was ever hidden
	for d := range all {
		if !l.closing[d] {
			all[d] = flows.Counters{}
		}
	}
	if !l.agreed(all, r.at) {
		return known
	}
	for d, c := range all {
		if grown := surplus(c.Sub(l.hidden[d])); l.closing[d] && grown.Packets > 0 {
			l.hide(d, grown)
			known[d] = grown
		}
	}
	l.closing = [flows.Directions]bool{}
	return known
}

// unsure reports whether more readings are needed soon.
func (l *ledger) unsure() bool { return !l.settled || l.closing != [flows.Directions]bool{} }

// stuck reports whether a ledger that has not settled will not do so while
// somebody before us hides ever more packets.
func (l *ledger) stuck(r *reading) bool {
	ahead := len(r.ahead[flows.Transmit])+len(r.ahead[flows.Receive]) > 0
	return !l.settled && ahead && !l.last.at.IsZero() && r.at.Sub(l.last.at) >= settleAfter
}

// hiding returns where not all is known yet of what somebody hides or hid.
func (s *shadow) hiding() (hiding [flows.Directions]bool) {
	for d := range hiding {
		hiding[d] = s.shadowed[d] || s.closing[d]
	}
	return hiding
}

// surplus is a difference as far as packets are missing; it is never below 0.
func surplus(c flows.Counters) flows.Counters {
	if int64(c.Packets) <= 0 {
		return flows.Counters{}
	}
	c.Bytes = uint64(max(0, int64(c.Bytes)))
	return c
}
