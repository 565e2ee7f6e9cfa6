// SPDX-License-Identifier: Apache-2.0

package page

import "time"

// window is the least time over which rates are taken, once so much has passed, and
// half of the most: shorter, and rows would change places all the time.
const window = 5 * time.Second

// history is what rates are made from: of all tallies the last one, and two earlier ones,
// the older of which is what is compared with.
type history struct {
	base, next, last *tally
	// began is the first tally's time; zero before it.
	began time.Time
	// moved is what all pods together have moved since the first tally. Unlike the sum
	// of their series it does not go down when a pod's end.
	moved pair
}

// add takes a tally down, unless it is as old as the last.
func (h *history) add(t *tally) {
	switch {
	case t.at.IsZero(): // nothing has been drained yet
		*h = history{last: t}
	case h.base == nil:
		*h = history{base: t, next: t, last: t, began: t.at}
	case t.at.After(h.last.at):
		for key, now := range t.pods {
			h.moved.add(now.grown(h.last.pods[key]))
		}
		if t.at.Sub(h.next.at) >= window {
			h.base, h.next = h.next, t
		}
		h.last = t
	}
}

// span is the time between the counters that are compared, 0 if there are no two.
func (h *history) span() time.Duration {
	if h.base == nil {
		return 0
	}
	return h.last.at.Sub(h.base.at)
}

// before returns the tally to compare with; without one there is no growth.
func (h *history) before() *tally {
	if h.base == nil {
		return h.last
	}
	return h.base
}
