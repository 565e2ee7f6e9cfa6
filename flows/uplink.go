// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/podmeter/podmeter/flows/plain"
)

// UplinkLabels tell the rows of the uplinks apart. What is unknown is zero.
type UplinkLabels struct {
	// Interface is the uplink's name.
	Interface string
	PeerKind  PeerKind
	Locality  Locality
	// Peer is the name of a node or of a range that the user named, else empty.
	Peer string
	// Country, ASN and Organization are the place of an external peer.
	Country, ASN, Organization string
}

// UplinkOptions are the limits of an [UplinkTable].
type UplinkOptions struct {
	// Limit is the most label sets of all uplinks together. Folded and unattributed
	// rows do not count. A set is admitted or folded at its first byte, and stays so
	// until it has been without a byte for Idle.
	Limit int
	// Idle is after how long without a byte a row is retired.
	Idle time.Duration
	// Grace is how long the series of an uplink outlive it.
	Grace time.Duration
}

// UplinkTable is the accumulated counters of the uplinks, by name. What passed an
// uplink has passed the interfaces of pods too, most of it: the two are never added.
type UplinkTable struct {
	options UplinkOptions
	seed    maphash.Seed

	mu      sync.Mutex
	uplinks map[string]*uplink
	rows    family[UplinkLabels]
	folded  uint64 // bytes
}

// uplink is what is known of one name.
type uplink struct {
	total, retired counterPair
	gone           time.Time // zero while it is metered
}

// NewUplinkTable returns an empty table.
func NewUplinkTable(options UplinkOptions) *UplinkTable {
	return &UplinkTable{options: options, seed: maphash.MakeSeed(), uplinks: make(map[string]*uplink)}
}

// uplinkBatch is what one epoch adds.
type uplinkBatch struct {
	start, end time.Time
	living     map[string]bool
	totals     map[uplinkTotal]Counters
	rows       map[uplinkRow]Counters
}

type uplinkTotal struct {
	name      string
	direction Direction
}

type uplinkRow struct {
	labels    UplinkLabels
	direction Direction
}

// add publishes a batch, and calls before when nobody can see it yet.
func (t *UplinkTable) add(b *uplinkBatch, before func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range b.living {
		t.uplink(name).gone = time.Time{}
	}
	for key, sum := range b.totals {
		t.uplink(key.name).total.add(key.direction, amount{sum, b.start})
	}
	for key, sum := range b.rows {
		if sum.IsZero() {
			continue
		}
		r := t.row(key.labels)
		r.add(key.direction, amount{sum, b.start})
		r.last = b.end
		if r.folded {
			t.folded += sum.Bytes
		}
	}
	t.expire(b)
	before()
}

func (t *UplinkTable) uplink(name string) *uplink {
	u := t.uplinks[name]
	if u == nil {
		u = &uplink{}
		t.uplinks[name] = u
	}
	return u
}

func (t *UplinkTable) row(labels UplinkLabels) *row[UplinkLabels] {
	if labels.PeerKind == PeerUnattributed { // one an uplink: never folded
		return t.rows.fixed(labels)
	}
	r := t.rows.find(labels, t.seed, func() bool { return t.rows.counted < t.options.Limit })
	if r == nil {
		r = t.rows.fold(UplinkLabels{Interface: labels.Interface, PeerKind: labels.PeerKind, Locality: labels.Locality, Peer: folded})
	}
	return r
}

// expire retires idle rows and forgets uplinks whose grace is over.
func (t *UplinkTable) expire(b *uplinkBatch) {
	for name, u := range t.uplinks {
		switch {
		case b.living[name]:
		case u.gone.IsZero():
			u.gone = b.end
		case b.end.Sub(u.gone) >= t.options.Grace:
			delete(t.uplinks, name)
		}
	}
	for labels, r := range t.rows.rows {
		if t.uplinks[labels.Interface] != nil {
			continue
		}
		delete(t.rows.rows, labels)
		if r.counted {
			t.rows.counted--
		}
	}
	t.rows.retire(b.end, t.options.Idle, func(r *row[UplinkLabels]) {
		t.uplinks[r.labels.Interface].retired.merge(&r.counterPair)
	})
}

// UplinkSnapshot is the state of an [UplinkTable] at one moment. Its series have
// neither namespace nor pod.
type UplinkSnapshot struct {
	// Interfaces are all that was counted, Retired what of it was in rows that were
	// idle; of their labels only the interface is set.
	Interfaces, Retired []Series[UplinkLabels]
	Rows                []Series[UplinkLabels]
	// Sets counts the label sets that the limit applies to, FoldedBytes went to rows
	// of the peer "other".
	Sets        int
	FoldedBytes uint64
}

// Snapshot copies the table. The order of series is not defined.
func (t *UplinkTable) Snapshot() UplinkSnapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := UplinkSnapshot{Sets: t.rows.counted, FoldedBytes: t.folded}
	for n, u := range t.uplinks {
		labels := UplinkLabels{Interface: n}
		s.Interfaces = append(s.Interfaces, series(name{}, labels, &u.total))
		if u.retired != (counterPair{}) {
			s.Retired = append(s.Retired, series(name{}, labels, &u.retired))
		}
	}
	for labels, r := range t.rows.rows {
		s.Rows = append(s.Rows, series(name{}, labels, &r.counterPair))
	}
	return s
}

// UplinkState is all that an uplink publisher and its table know, to be written
// down and given to the next ones.
type UplinkState struct {
	Uplinks []UplinkCounters
	Rows    RowStates[UplinkLabels]
	Folded  uint64
	Stats   Stats
}

// UplinkCounters are those of one uplink.
type UplinkCounters struct {
	Name           string
	Total, Retired PairState
	Gone           time.Time
}

// state is called by who holds the table.
func (t *UplinkTable) state() *UplinkState {
	s := &UplinkState{Rows: t.rows.state(), Folded: t.folded}
	for name, u := range t.uplinks {
		s.Uplinks = append(s.Uplinks, UplinkCounters{
			Name: name, Total: u.total.state(), Retired: u.retired.state(), Gone: u.gone,
		})
	}
	return s
}

func (t *UplinkTable) restore(s *UplinkState) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.uplinks) > 0 {
		return errNotEmpty
	}
	for _, u := range s.Uplinks {
		bound(plain.KernelLimit, &u.Name)
		t.uplinks[u.Name] = &uplink{total: u.Total.pair(), retired: u.Retired.pair(), gone: u.Gone}
	}
	t.rows.restore(s.Rows, (*UplinkLabels).bound)
	t.folded = s.Folded
	return nil
}
