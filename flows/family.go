// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"hash/maphash"
	"time"
)

// counterPair is a counter for each direction with the start of its first epoch.
type counterPair struct {
	counters [Directions]Counters
	created  [Directions]time.Time
}

// add adds an amount, keeping the earlier of both beginnings.
func (p *counterPair) add(direction Direction, a amount) {
	if a.IsZero() {
		return
	}
	if at := &p.created[direction]; at.IsZero() || a.start.Before(*at) {
		*at = a.start
	}
	p.counters[direction].Add(a.Counters)
}

func (p *counterPair) merge(o *counterPair) {
	for d := range Direction(Directions) {
		p.add(d, amount{o.counters[d], o.created[d]})
	}
}

// family is an account's rows of one family.
type family[L comparable] struct {
	rows map[L]*row[L]
	// counted is how many of them count towards the limits.
	counted int
	folded  foldedSets
}

type row[L comparable] struct {
	labels L
	counterPair
	last    time.Time // end of the last epoch that had a byte of it, or something of its health
	counted bool
	folded  bool       // takes what a limit folds
	health  *healthSum // of its TCP connections; nil if nothing is known
	encoded []byte     // the labels, once a state has been written
}

// find returns the row of a label set, made if admit allows, else nil: then it
// is folded, and will be when it comes again.
func (f *family[L]) find(labels L, seed maphash.Seed, admit func() bool) *row[L] {
	if r := f.rows[labels]; r != nil {
		return r
	}
	hash := maphash.Comparable(seed, labels)
	if f.folded.has(hash) || !admit() {
		f.folded.add(hash)
		return nil
	}
	f.counted++
	r := f.fixed(labels)
	r.counted = true
	return r
}

// fixed returns the row of a label set that stands outside the limits.
func (f *family[L]) fixed(labels L) *row[L] {
	r := f.rows[labels]
	if r == nil {
		r = &row[L]{labels: labels}
		if f.rows == nil {
			f.rows = make(map[L]*row[L])
		}
		f.rows[labels] = r
	}
	return r
}

// fold returns the row of a label set that takes what a limit folds.
func (f *family[L]) fold(labels L) *row[L] {
	r := f.fixed(labels)
	r.folded = !r.counted
	return r
}

// retire removes the counted rows that were without a byte for idle, each after
// into has taken it over, and returns how many they were.
func (f *family[L]) retire(now time.Time, idle time.Duration, into func(*row[L])) (retired int) {
	f.folded.turn(now, idle)
	for labels, r := range f.rows {
		if !r.counted || now.Sub(r.last) < idle {
			continue
		}
		into(r)
		delete(f.rows, labels)
		f.counted--
		retired++
	}
	return retired
}

// drop takes out the counted row that has been without a byte for longest. Its label set
// is folded from then on.
func (f *family[L]) drop(seed maphash.Seed) *row[L] {
	var oldest *row[L]
	for _, r := range f.rows {
		if r.counted && (oldest == nil || r.last.Before(oldest.last)) {
			oldest = r
		}
	}
	delete(f.rows, oldest.labels)
	f.counted--
	f.folded.add(maphash.Comparable(seed, oldest.labels))
	return oldest
}

// foldedSetsLimit bounds what one family of one account remembers: some 600 KiB
// if both spans are full.
const foldedSetsLimit = 1 << 14

// foldedSets are the hashes of the label sets that were folded in this span of
// time and in the one before. A span is FlowIdle long at least, so that a set is
// remembered for that long after its last byte. The sets that find no place
// here are not told apart: while a span is full, every new one counts as folded.
type foldedSets struct {
	recent, earlier map[uint64]struct{}
	turned          time.Time // when the recent span began
}

func (s *foldedSets) has(hash uint64) bool {
	_, recent := s.recent[hash]
	_, earlier := s.earlier[hash]
	return recent || earlier || len(s.recent) >= foldedSetsLimit || len(s.earlier) >= foldedSetsLimit
}

func (s *foldedSets) add(hash uint64) {
	if len(s.recent) >= foldedSetsLimit {
		return
	}
	if s.recent == nil {
		s.recent = make(map[uint64]struct{})
	}
	s.recent[hash] = struct{}{}
}

// turn begins a span if the recent one is over.
func (s *foldedSets) turn(now time.Time, span time.Duration) {
	if now.Sub(s.turned) >= span {
		s.recent, s.earlier, s.turned = nil, s.recent, now
	}
}
