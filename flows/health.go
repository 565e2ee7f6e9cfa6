// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"math"
	"net/netip"
	"time"
)

// RTTs are told apart by size in buckets as a native histogram of schema [RTTSchema] has
// them, two an octave. The first has all up to [RTTZero], the last all that are longer
// than the one before it.
const (
	RTTBuckets = 47
	RTTSchema  = 1
	// RTTFirst is the native index of the second bucket: its upper bound is
	// 2^(RTTFirst/2) s.
	RTTFirst = -33
)

// RTTZero is the upper bound of the first bucket in seconds.
var RTTZero = math.Exp2(-17)

// Health is how TCP connections do.
type Health struct {
	// Opened were established, Failed ended before that; of the latter only those that
	// the local end began.
	Opened, Failed uint64
	// RetransmittedSegments and RetransmittedBytes are of the local end; the bytes are
	// payload.
	RetransmittedSegments, RetransmittedBytes uint64
	// RTT counts samples of the smoothed round-trip time by bucket; RTTSum is their sum
	// in microseconds.
	RTT    [RTTBuckets]uint64
	RTTSum uint64
}

// Add adds o to h.
func (h *Health) Add(o *Health) {
	h.Opened += o.Opened
	h.Failed += o.Failed
	h.RetransmittedSegments += o.RetransmittedSegments
	h.RetransmittedBytes += o.RetransmittedBytes
	for i, n := range o.RTT {
		h.RTT[i] += n
	}
	h.RTTSum += o.RTTSum
}

// HealthRecord is the health of one end of a connection in an epoch: of 65,536 of them an
// epoch can have one each, so the numbers are as the kernel side has them.
type HealthRecord struct {
	// Cgroup is the id of the socket's cgroup in the v2 hierarchy, 0 if it is not known.
	Cgroup uint64
	// Local and Peer are its ends, IPv4 unmapped.
	Local, Peer netip.AddrPort
	// First and Last are when the first and the last of it was seen.
	First, Last time.Time
	// The rest is as in [Health].
	RetransmittedBytes, RTTSum            uint64
	Opened, Failed, RetransmittedSegments uint32
	RTT                                   [RTTBuckets]uint32
}

// Health returns what there is to be added.
func (r *HealthRecord) Health() Health {
	h := Health{
		Opened: uint64(r.Opened), Failed: uint64(r.Failed),
		RetransmittedSegments: uint64(r.RetransmittedSegments), RetransmittedBytes: r.RetransmittedBytes, RTTSum: r.RTTSum,
	}
	for i, n := range r.RTT {
		h.RTT[i] = uint64(n)
	}
	return h
}

// flow returns a flow of the connection, without a byte: what is to be known of the
// connection follows from it as it does from the packets'.
func (r *HealthRecord) flow() *Record {
	ethertype := uint16(EtherTypeIPv6)
	if r.Local.Addr().Is4() {
		ethertype = EtherTypeIPv4
	}
	return &Record{
		Key: Key{
			Direction: Transmit, EtherType: ethertype, Protocol: ProtocolTCP,
			Source: r.Local.Addr(), SourcePort: r.Local.Port(),
			Destination: r.Peer.Addr(), DestinationPort: r.Peer.Port(),
		},
		First: r.First, Last: r.Last,
	}
}

// HealthEntries count the ends of connections that were drained, once an epoch, by what
// came of them.
type HealthEntries struct {
	// Attributed are on a series. NoPod are of cgroups that are no pod's: the node's own
	// sockets. Unbound are of pods of which no interface came to be known, or of too many.
	Attributed, NoPod, Unbound uint64
}

// healthSum is the health of a row, and the start of the epoch in which it began.
type healthSum struct {
	Health
	created time.Time
}

func (s *healthSum) add(health *Health, created time.Time) {
	if s.created.IsZero() || created.Before(s.created) {
		s.created = created
	}
	s.Health.Add(health)
}

// health adds the health of connections to the rows of their flows. The flows of the
// epoch are there already.
func (p *Publisher) health(batch *Batch, records []HealthRecord) {
	if p.options.Containers == nil {
		return
	}
	byUID := make(map[string]*Pod, len(p.points))
	for _, pt := range p.points {
		if pt.pod != nil {
			byUID[pt.pod.UID] = pt.pod
		}
	}
	var entries HealthEntries
	p.early.release(batch, byUID, &entries)
	names := namesOf(p.options.Containers)
	for i := range records {
		p.healthOf(batch, &records[i], names, byUID, &entries)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Health.add(entries)
}

func (p *Publisher) healthOf(batch *Batch, record *HealthRecord, names *cgroupNames, byUID map[string]*Pod, entries *HealthEntries) {
	uid, _ := names.of(record.Cgroup)
	if uid == "" {
		entries.NoPod++
		return
	}
	flow, health := record.flow(), record.Health()
	from := p.attribution.source(flow)
	pod := byUID[uid]
	if pod == nil {
		p.early.wait(uid, p.attribution.labelsOf(&from).flow, &health, batch, entries)
		return
	}
	entries.Attributed++
	batch.health.add(rowKey{pod: pod, source: from, by: p.userOf(pod, flow)}, &health, batch.Start)
}

func (e *HealthEntries) add(o HealthEntries) {
	e.Attributed += o.Attributed
	e.NoPod += o.NoPod
	e.Unbound += o.Unbound
}

// healthBatch is the health of connections that an epoch adds to rows. Whoever adds to it
// keeps what it points to until the batch has been added.
type healthBatch struct {
	rows  map[rowKey]int // their numbers; the direction of the keys means nothing
	parts []healthPart
}

// healthPart is a part of what is added to a row.
type healthPart struct {
	row     int
	health  *Health
	created time.Time
}

func (b *healthBatch) add(key rowKey, health *Health, created time.Time) {
	row, known := b.rows[key]
	if !known {
		row = len(b.rows)
		b.rows[key] = row
	}
	b.parts = append(b.parts, healthPart{row, health, created})
}

// addHealth adds to the rows of the labels, or to those which they are folded into: a row
// may begin with it, before its first byte.
func (t *Table) addHealth(b *Batch) {
	sums := make([]*healthSum, len(b.health.rows))
	for key, row := range b.health.rows {
		r := t.flowRow(t.account(key.pod), b.labels(&key).flow)
		if r.health == nil {
			r.health = &healthSum{}
		}
		r.last = b.End
		sums[row] = r.health
	}
	for _, part := range b.health.parts {
		sums[part.row].add(part.health, part.created)
	}
}

// HealthSeries are the series of a flow row about the health of its TCP connections.
type HealthSeries struct {
	Namespace, Pod string
	Labels         FlowLabels
	Health         Health
	// Created is the start of the epoch in which they began.
	Created time.Time
}

// HealthState is the health of the row with this number in [AccountState].Flows, see
// [Health].
type HealthState struct {
	Row      int       `cbor:"1,keyasint,omitempty"`
	Opened   uint64    `cbor:"2,keyasint,omitempty"`
	Failed   uint64    `cbor:"3,keyasint,omitempty"`
	Segments uint64    `cbor:"4,keyasint,omitempty"`
	Bytes    uint64    `cbor:"5,keyasint,omitempty"`
	RTT      []uint64  `cbor:"6,keyasint,omitempty"` // but for empty buckets at its end
	RTTSum   uint64    `cbor:"7,keyasint,omitempty"`
	Created  time.Time `cbor:"8,keyasint"`
}

func (s *healthSum) state(row int) HealthState {
	n := len(s.RTT)
	for n > 0 && s.RTT[n-1] == 0 {
		n--
	}
	return HealthState{
		Row: row, Opened: s.Opened, Failed: s.Failed, Segments: s.RetransmittedSegments, Bytes: s.RetransmittedBytes,
		RTT: s.RTT[:n], RTTSum: s.RTTSum, Created: s.created,
	}
}

func (s *HealthState) sum() *healthSum {
	sum := &healthSum{created: s.Created, Health: Health{
		Opened: s.Opened, Failed: s.Failed, RetransmittedSegments: s.Segments, RetransmittedBytes: s.Bytes, RTTSum: s.RTTSum,
	}}
	copy(sum.RTT[:], s.RTT)
	return sum
}

// HealthStates are the health of rows, written without reflection as [RowStates] are.
type HealthStates []HealthState

// healthState is that of the rows of a family, in this order.
func healthState(rows RowStates[FlowLabels]) HealthStates {
	n := 0
	for i := range rows {
		if rows[i].row.health != nil {
			n++
		}
	}
	all := make(HealthStates, 0, n)
	for i := range rows {
		if h := rows[i].row.health; h != nil {
			all = append(all, h.state(i))
		}
	}
	return all
}

// healthBytes is what a [HealthState] takes, or more.
const healthBytes = 96

// MarshalCBOR implements [cbor.Marshaler], see [RowStates.MarshalCBOR].
func (s HealthStates) MarshalCBOR() ([]byte, error) {
	if s == nil {
		return []byte{cborNull}, nil
	}
	b := appendHead(make([]byte, 0, 16+healthBytes*len(s)), cborArray, uint64(len(s)))
	for i := range s {
		b = s[i].append(b)
	}
	return b, nil
}

func (s *HealthState) append(b []byte) []byte {
	at, pairs := len(b), byte(1)
	b = append(b, cborMap)
	number := func(key byte, n uint64) {
		if n != 0 {
			b, pairs = appendHead(append(b, key), cborUint, n), pairs+1
		}
	}
	if s.Row >= 0 {
		number(1, uint64(s.Row))
	} else { // which is read of a file alone
		b, pairs = appendHead(append(b, 1), cborNegative, uint64(^s.Row)), pairs+1
	}
	number(2, s.Opened)
	number(3, s.Failed)
	number(4, s.Segments)
	number(5, s.Bytes)
	if len(s.RTT) > 0 {
		b, pairs = appendHead(append(b, 6), cborArray, uint64(len(s.RTT))), pairs+1
		for _, n := range s.RTT {
			b = appendHead(b, cborUint, n)
		}
	}
	number(7, s.RTTSum)
	b = appendTime(append(b, 8), s.Created)
	b[at] |= pairs
	return b
}

// restoreHealth is the reverse of healthState.
func restoreHealth(f *family[FlowLabels], rows []RowState[FlowLabels], all []HealthState) {
	for i := range all {
		row := all[i].Row
		if row < 0 || row >= len(rows) {
			continue
		}
		if r := f.rows[rows[row].Labels]; r.health == nil {
			r.health = all[i].sum()
		} else {
			sum := all[i].sum()
			r.health.add(&sum.Health, sum.created)
		}
	}
}
