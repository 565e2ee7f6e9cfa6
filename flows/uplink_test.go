// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"testing"
	"time"
	"unique"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// uplinkWorld owns addresses for the tests of uplinks: 10.1/16 are pods of another node
// in this zone, 10.2/16 is node-b, 10.3/16 a named range, the rest external.
type uplinkWorld struct{}

func (uplinkWorld) Owner(q Query) *Owner {
	switch b := q.Address.As4(); {
	case b[0] == 10 && b[1] == 1:
		return &Owner{Kind: PeerPod, Namespace: "shop", Name: "api", Node: "node-b", Zone: "z"}
	case b[0] == 10 && b[1] == 2:
		return &Owner{Kind: PeerNode, Name: "node-b", Node: "node-b", Zone: "z"}
	case b[0] == 10:
		return &Owner{Kind: PeerCIDR, Name: "office"}
	}
	return &Owner{Kind: PeerExternal}
}
func (uplinkWorld) LocalPod(netip.Addr, time.Time, time.Time) *Pod { return nil }
func (uplinkWorld) Here() (string, string)                         { return "node-a", "z" }
func (uplinkWorld) Handle(netip.Addr) unique.Handle[Place] {
	return unique.Make(Place{Country: "CH", ASN: "64496", Organization: "Example"})
}

type uplinkBench struct {
	*UplinkPublisher
	table *UplinkTable
	saved *UplinkState
	at    time.Time
	t     *testing.T
}

func newUplinkBench(t *testing.T, options UplinkOptions) *uplinkBench {
	b := &uplinkBench{table: NewUplinkTable(options), at: time.Unix(1_900_000_000, 0), t: t}
	b.UplinkPublisher = NewUplinkPublisher(UplinkPublisherOptions{
		Table: b.table, Directory: uplinkWorld{}, Places: uplinkWorld{}, Persist: func(s *UplinkState) { b.saved = s },
	})
	return b
}

const uplinkNode = "192.0.2.1"

// uplinkRecord is a flow of uplink 1, of 100 bytes a packet.
func uplinkRecord(direction Direction, peer string, packets uint64) Record {
	key := Key{
		Point: 1, Direction: direction, EtherType: EtherTypeIPv4, Protocol: ProtocolUDP,
		Source: netip.MustParseAddr(uplinkNode), Destination: netip.MustParseAddr(peer),
	}
	if direction == Receive {
		key.Source, key.Destination = key.Destination, key.Source
	}
	return Record{Key: key, Counters: Counters{Bytes: 100 * packets, Packets: packets}}
}

// epoch publishes records of uplinks 1, eth0, which is there, and what of the
// totals is in no record.
func (b *uplinkBench) epoch(there bool, residue uint64, records ...Record) {
	b.t.Helper()
	e := &Epoch{Start: b.at, End: b.at.Add(time.Second), Records: records}
	b.at = e.End
	i := Interface{Point: 1, Name: "eth0"}
	if !there {
		i.Gone = e.Start
	}
	e.Interfaces = []Interface{i}
	for d := range Direction(Directions) {
		total := Total{Point: 1, Direction: d, Residue: Counters{Bytes: residue, Packets: residue / 100}}
		total.Counters = total.Residue
		for i := range records {
			if records[i].Key.Direction == d {
				total.Add(records[i].Counters)
			}
		}
		e.Totals = append(e.Totals, total)
	}
	if err := b.Publish(e); err != nil {
		b.t.Fatal(err)
	}
	b.check()
}

// check checks the identity: what was counted is in rows or retired.
func (b *uplinkBench) check() {
	b.t.Helper()
	s := b.table.Snapshot()
	sums := make(map[string][Directions]Counters)
	for _, all := range [][]Series[UplinkLabels]{s.Rows, s.Retired} {
		for _, row := range all {
			sum := sums[row.Labels.Interface]
			for d := range sum {
				sum[d].Add(row.Counters[d])
			}
			sums[row.Labels.Interface] = sum
		}
	}
	for _, i := range s.Interfaces {
		if got := sums[i.Labels.Interface]; got != i.Counters {
			b.t.Errorf("%s: rows and retired ones make %v, want the %v that were counted", i.Labels.Interface, got, i.Counters)
		}
		delete(sums, i.Labels.Interface)
	}
	if len(sums) > 0 {
		b.t.Errorf("rows without an interface: %v", sums)
	}
}

// rows are the bytes of a direction by labels.
func (b *uplinkBench) rows(d Direction) map[UplinkLabels]uint64 {
	rows := make(map[UplinkLabels]uint64)
	for _, row := range b.table.Snapshot().Rows {
		if bytes := row.Counters[d].Bytes; bytes > 0 {
			rows[row.Labels] = bytes
		}
	}
	return rows
}

func generous() UplinkOptions {
	return UplinkOptions{Limit: 100, Idle: time.Hour, Grace: time.Minute}
}

func TestUplinkRows(t *testing.T) {
	b := newUplinkBench(t, generous())
	b.epoch(true, 300,
		uplinkRecord(Transmit, "198.51.100.7", 1), uplinkRecord(Transmit, "203.0.113.9", 2),
		uplinkRecord(Transmit, "10.1.0.1", 3), uplinkRecord(Transmit, "10.2.0.1", 4), uplinkRecord(Transmit, "10.3.0.1", 5),
		uplinkRecord(Receive, "198.51.100.7", 6),
		Record{Key: Key{Point: 1, Direction: Transmit, EtherType: 0x0806}, Counters: Counters{Bytes: 42, Packets: 1}})
	external := UplinkLabels{Interface: "eth0", PeerKind: PeerExternal, Locality: LocalityExternal,
		Country: "CH", ASN: "64496", Organization: "Example"}
	want := map[UplinkLabels]uint64{
		external: 300,
		{Interface: "eth0", PeerKind: PeerPod, Locality: LocalitySameZone}:                  300,
		{Interface: "eth0", PeerKind: PeerNode, Locality: LocalitySameZone, Peer: "node-b"}: 400,
		{Interface: "eth0", PeerKind: PeerCIDR, Peer: "office"}:                             500,
		{Interface: "eth0", PeerKind: PeerLink}:                                             42,
		{Interface: "eth0", PeerKind: PeerUnattributed}:                                     300,
	}
	if diff := cmp.Diff(want, b.rows(Transmit)); diff != "" {
		t.Errorf("transmit (-want +got):\n%s", diff)
	}
	want = map[UplinkLabels]uint64{external: 600, {Interface: "eth0", PeerKind: PeerUnattributed}: 300}
	if diff := cmp.Diff(want, b.rows(Receive)); diff != "" {
		t.Errorf("receive (-want +got):\n%s", diff)
	}
	if got := b.Stats(); got.ResidueBytes != 600 || got.Entries != 7 || !got.LastEpoch.Equal(b.at) {
		t.Errorf("stats: got %+v, want 600 bytes of residue in 7 entries at %v", got, b.at)
	}
}

func TestUplinkLimitFolds(t *testing.T) {
	options := generous()
	options.Limit = 1
	b := newUplinkBench(t, options)
	for range 2 { // what was folded stays so
		b.epoch(true, 0, uplinkRecord(Transmit, "10.2.0.1", 1))
		b.epoch(true, 100, uplinkRecord(Transmit, "10.3.0.1", 1), uplinkRecord(Transmit, "198.51.100.7", 1))
	}
	want := map[UplinkLabels]uint64{
		{Interface: "eth0", PeerKind: PeerNode, Locality: LocalitySameZone, Peer: "node-b"}:   200,
		{Interface: "eth0", PeerKind: PeerCIDR, Peer: folded}:                                 200,
		{Interface: "eth0", PeerKind: PeerExternal, Locality: LocalityExternal, Peer: folded}: 200,
		{Interface: "eth0", PeerKind: PeerUnattributed}:                                       200,
	}
	if diff := cmp.Diff(want, b.rows(Transmit)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := b.table.Snapshot(); got.Sets != 1 || got.FoldedBytes != 400 {
		t.Errorf("got %d sets and %d bytes folded, want 1 and 400", got.Sets, got.FoldedBytes)
	}
}

// An idle row goes to the retired ones and leaves its place to another; an uplink
// that has gone is forgotten when its grace is over, and not before.
func TestUplinkRowsEnd(t *testing.T) {
	options := generous()
	options.Limit, options.Idle, options.Grace = 1, 2*time.Second, 2*time.Second
	b := newUplinkBench(t, options)
	b.epoch(true, 0, uplinkRecord(Transmit, "10.2.0.1", 1))
	for range 2 {
		b.epoch(true, 0)
	}
	s := b.table.Snapshot()
	if len(s.Rows) != 0 || s.Sets != 0 || len(s.Retired) != 1 || s.Retired[0].Counters[Transmit].Bytes != 100 {
		t.Errorf("idle: got %+v, want its 100 bytes retired", s)
	}
	b.epoch(false, 0, uplinkRecord(Receive, "198.51.100.7", 1))
	if got := b.rows(Receive); len(got) != 1 {
		t.Errorf("after that: got %v, want another row in its place", got)
	}
	b.epoch(false, 0)
	if got := b.table.Snapshot(); len(got.Interfaces) != 1 {
		t.Errorf("within the grace: got %+v, want its series to be there", got)
	}
	b.epoch(false, 0)
	if got := b.table.Snapshot(); len(got.Interfaces)+len(got.Rows)+len(got.Retired)+got.Sets != 0 {
		t.Errorf("after the grace: got %+v, want nothing", got)
	}
}

// Another publisher goes on from a state as if there had been no other.
func TestUplinkStateComesBack(t *testing.T) {
	options := generous()
	options.Limit = 2
	b := newUplinkBench(t, options)
	b.epoch(true, 200, uplinkRecord(Transmit, "10.2.0.1", 1), uplinkRecord(Receive, "10.3.0.1", 1), uplinkRecord(Receive, "198.51.100.7", 1))
	next := newUplinkBench(t, options)
	next.at = b.at
	if err := next.Restore(b.saved); err != nil {
		t.Fatal(err)
	}
	if err := next.Restore(b.saved); err == nil {
		t.Error("a second time: got no error")
	}
	for _, bench := range []*uplinkBench{b, next} {
		bench.epoch(true, 100, uplinkRecord(Transmit, "10.2.0.1", 2))
	}
	sorted := cmpopts.SortSlices(func(a, b Series[UplinkLabels]) bool { return a.Labels.PeerKind < b.Labels.PeerKind })
	if diff := cmp.Diff(b.table.Snapshot(), next.table.Snapshot(), sorted); diff != "" {
		t.Errorf("(-one publisher +two):\n%s", diff)
	}
	if b.Stats() != next.Stats() {
		t.Errorf("stats: got %+v, want %+v", next.Stats(), b.Stats())
	}
}

// What no interface is known of is lost, and said to be.
func TestUplinkWithoutInterface(t *testing.T) {
	b := newUplinkBench(t, generous())
	total := Total{Point: 9, Counters: Counters{Bytes: 70, Packets: 1}}
	if err := b.Publish(&Epoch{Totals: []Total{total}, ConservationError: 5}); err != nil {
		t.Fatal(err)
	}
	if got := b.Stats(); got.LostNoInterfaceBytes != 70 || got.ConservationErrorBytes != 5 {
		t.Errorf("got %+v, want 70 bytes lost and 5 in error", got)
	}
}
