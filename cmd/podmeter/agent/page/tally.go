// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"hash/maphash"
	"strings"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// pair is bytes by [flows.Direction].
type pair [flows.Directions]uint64

func (p *pair) add(o pair) {
	for d := range p {
		p[d] += o[d]
	}
}

func (p pair) sum() uint64 { return p[flows.Transmit] + p[flows.Receive] }

// grown is what a counter has grown since it was before; one that is less than that
// has begun anew.
func (p pair) grown(before pair) (by pair) {
	for d := range p {
		by[d] = p[d]
		if p[d] >= before[d] {
			by[d] -= before[d]
		}
	}
	return by
}

// pod tells the rows of pods apart.
type pod struct{ Namespace, Name string }

func (p pod) compare(o pod) int {
	return cmp.Or(strings.Compare(p.Namespace, o.Namespace), strings.Compare(p.Name, o.Name))
}

// identities makes of a series of a family what it is found again by: 8 bytes for its pod
// and its 200 bytes of labels. That two of 100,000 share one happens in one of a
// thousand million pages, and then a rate is wrong, no sum.
var identities = maphash.MakeSeed()

func identity[L comparable](s *flows.Series[L]) uint64 {
	return maphash.Comparable(identities, struct {
		pod    pod
		labels L
	}{pod{s.Namespace, s.Pod}, s.Labels})
}

// tally is the bytes of each series of a snapshot, by its identity: rows are sums, which
// also fall when one of their series ends, and say nothing of growth.
type tally struct {
	at                  time.Time
	pods, flows, places map[uint64]pair
}

func newTally(s *flows.Snapshot) *tally {
	return &tally{s.End, bytesBySeries(s.Pods), bytesBySeries(s.Flows), bytesBySeries(s.Externals)}
}

func bytesBySeries[L comparable](all []flows.Series[L]) map[uint64]pair {
	bytes := make(map[uint64]pair, len(all))
	for i := range all {
		bytes[identity(&all[i])] = bytesOf(&all[i])
	}
	return bytes
}

// grownOf is what a series has grown since; one that was not there has begun since.
func grownOf[L comparable](s *flows.Series[L], since map[uint64]pair) pair {
	return bytesOf(s).grown(since[identity(s)])
}

func add[K comparable](to map[K]pair, key K, bytes pair) {
	sum := to[key]
	sum.add(bytes)
	to[key] = sum
}

func bytesOf[L any](s *flows.Series[L]) (bytes pair) {
	for d := range bytes {
		bytes[d] = s.Counters[d].Bytes
	}
	return bytes
}
