// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

const (
	// lookupLimit is the most lookups of a drain, and of a second of drains that come
	// one upon the other: some 30 ms (docs/BENCHMARKS.md).
	lookupLimit = 4096
	// lookupFloor is how many of them each interface may make whatever others do, or its equal
	// share of half of them if that is less.
	lookupFloor = 64
	// lookupTime is for how long a drain looks up at most, and as long again within the floors.
	lookupTime = 50 * time.Millisecond
	// stampSlack is how much later than a flow's first packet its connection may have
	// begun by another clock: that of packets counts kernel ticks of up to 10 ms.
	stampSlack = 50 * time.Millisecond
	// lookupAge is how long before a lookup the flow may have begun that it tells of, or
	// the client may have used its port again: two epochs can be hours when no agent
	// ran. Linux remembers a TCP connection that ended for as long
	// (nf_conntrack_tcp_timeout_time_wait).
	lookupAge = 2 * time.Minute
)

// translation finds the backends of connections to Services, by asking a
// [Translator] once a connection and drain.
//
// What it says is about now, while a flow is of the past, and a client may have used
// its port again since, for another backend. So an answer is kept for the next drain:
// it was given right before the epoch ended that is then read, when the flows
// that had begun by then were there.
type translation struct {
	translator Translator
	log        *slog.Logger
	now        func() time.Time

	// recent are the connections of this drain, earlier those of the one before: one
	// that no drain sees is forgotten.
	recent, earlier map[Connection]*sightings
	// left is how many lookups may still be made beyond the floors, filled when that was last
	// reckoned; made are those within, by interface.
	left, floor int
	made        map[Point]int
	filled      time.Time
	began       time.Time
	// failed is whether a lookup of this drain did, broken the last that was made.
	failed, broken bool

	mu      sync.Mutex
	lookups Lookups
}

// sighting is what was known of a connection at one time; never looked up if that is
// zero.
type sighting struct {
	at      time.Time
	backend Backend
	found   bool
}

// sightings are those of the last three drains.
type sightings struct{ older, old, recent sighting }

// newTranslation returns nil without a translator.
func newTranslation(translator Translator, log *slog.Logger) *translation {
	if translator == nil {
		return nil
	}
	return &translation{translator: translator, log: log, now: time.Now}
}

// begin is called before the flows of an epoch.
func (t *translation) begin(epoch *Epoch) {
	if t == nil {
		return
	}
	t.recent, t.earlier = make(map[Connection]*sightings), t.recent
	t.failed, t.began = false, time.Time{}
	t.left = lookupLimit
	if elapsed := epoch.End.Sub(t.filled); elapsed < time.Second {
		t.left = int(elapsed.Seconds() * lookupLimit)
	}
	t.filled = epoch.End
	interfaces := max(1, len(epoch.Interfaces))
	t.floor, t.made = min(lookupFloor, t.left/2/interfaces), make(map[Point]int)
	t.left -= t.floor * interfaces
}

// may reports whether one more lookup may be made for an interface, and takes note of it.
func (t *translation) may(point Point, now time.Time) bool {
	if t.began.IsZero() {
		t.began = now
	}
	took := now.Sub(t.began)
	switch {
	case t.made[point] < t.floor && took <= 2*lookupTime:
		t.made[point]++
	case t.left > 0 && took <= lookupTime:
		t.left--
	default:
		return false
	}
	return true
}

// backend returns where a flow to a Service went; ok is false if that is not
// certain.
func (t *translation) backend(record *Record) (address netip.AddrPort, ok bool) {
	if t == nil {
		return address, false
	}
	connection, ok := connectionOf(&record.Key)
	if !ok {
		return address, false
	}
	s := t.recent[connection]
	if s == nil {
		s = t.look(connection, record.Key.Point)
	}
	return s.during(record.First, record.Last)
}

// look looks a connection up and keeps what came of it, if there is anything to
// keep.
func (t *translation) look(connection Connection, by Point) *sightings {
	s := t.earlier[connection]
	if s == nil {
		s = &sightings{}
	}
	s.older, s.old, s.recent = s.old, s.recent, t.sight(connection, by)
	if !s.recent.at.IsZero() || !s.old.at.IsZero() {
		t.recent[connection] = s
	}
	return s
}

func (t *translation) sight(connection Connection, by Point) sighting {
	now := t.now()
	if t.failed || !t.may(by, now) {
		t.count(func(l *Lookups) { l.Skipped++ })
		return sighting{}
	}
	backend, found, err := t.translator.Backend(connection)
	t.judge(err)
	switch {
	case err != nil:
		t.count(func(l *Lookups) { l.Errors++ })
		return sighting{}
	case !found:
		t.count(func(l *Lookups) { l.Missing++ })
	default:
		t.count(func(l *Lookups) { l.Found++ })
	}
	return sighting{now, backend, found}
}

// judge takes note of whether lookups work, and tells when that changes.
func (t *translation) judge(err error) {
	t.failed = err != nil
	switch {
	case t.failed && !t.broken:
		t.log.Warn("look up backends of Services, which stay peers of kind service", "error", err)
	case t.broken && !t.failed:
		t.log.Info("backends of Services can be looked up again")
	}
	t.broken = t.failed
}

func (t *translation) count(add func(*Lookups)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	add(&t.lookups)
}

// Lookups returns what came of looking up the backends of Services since the
// publisher was made.
func (p *Publisher) Lookups() Lookups {
	t := p.attribution.translation
	if t == nil {
		return Lookups{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lookups
}

// during returns the backend of a flow with its first and last packet at these times.
// The old sighting tells if the flow had begun by then: the epoch ended right after it.
func (s *sightings) during(first, last time.Time) (address netip.AddrPort, ok bool) {
	at := &s.recent
	if !s.old.at.IsZero() && !first.After(s.old.at) {
		at = &s.old
		if s.older.differs(&s.old) || last.After(s.old.at) && s.old.differs(&s.recent) {
			return address, false
		}
	}
	if !at.found || at.at.Sub(first) > lookupAge || at.beganAfter(first) {
		return address, false
	}
	return at.backend.Address, true
}

// beganAfter reports whether the kernel says that the connection began after a flow's first packet. A beginning
// that was yet to come when it was looked up says nothing: the clock has been set back.
func (s *sighting) beganAfter(first time.Time) bool {
	since := s.backend.Since
	return since.After(first.Add(stampSlack)) && !since.After(s.at.Add(stampSlack))
}

// differs reports whether two sightings are of two backends.
func (s *sighting) differs(o *sighting) bool {
	return s.found && o.found && s.backend.Address != o.backend.Address
}
