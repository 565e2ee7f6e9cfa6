// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// One pod that scans takes its quarter of the limit and not the others' places.
func TestScanningPodLeavesRoom(t *testing.T) {
	options := TableOptions{FlowLimit: 100, ExternalLimit: 100, FlowIdle: time.Hour, SeriesGrace: time.Hour}
	publisher, table, _ := world(2, options, Optional{PeerPort: true})
	e := &Epoch{Start: start, End: start.Add(time.Minute), Interfaces: []Interface{iface(1), iface(2)}}
	for port := range 500 {
		for point := range 2 {
			if point == 1 && port >= 20 {
				continue
			}
			e.Records = append(e.Records, Record{Counters: Counters{100, 1}, First: start, Last: start, Key: Key{
				Point: Point(point + 1), EtherType: EtherTypeIPv4, Protocol: 6, Source: podAddress(point + 1),
				Destination: netip.MustParseAddr("203.0.113.9"), DestinationPort: uint16(port + 1)}})
		}
	}
	if err := publisher.Publish(e); err != nil {
		t.Fatal(err)
	}
	// The first epoch waits for the binding, the rows are then all published.
	rows := map[string]int{}
	for _, s := range table.Snapshot().Flows {
		if s.Labels.Peer != folded {
			rows[s.Pod]++
		}
	}
	if rows["pod1"] != 25 || rows["pod2"] != 20 {
		t.Errorf("rows: got %v, want pod1 25 and pod2 20", rows)
	}
}

// A pod made again under its name goes on where the one before it ended; when
// nobody has the name any more its series end after the grace.
func TestPodMadeAgainUnderItsName(t *testing.T) {
	publisher, table, d := world(1, TableOptions{FlowLimit: 100, ExternalLimit: 100, FlowIdle: time.Hour, SeriesGrace: 5 * time.Minute}, Optional{})
	send := func(minute, point int) Counters {
		e := &Epoch{Start: start.Add(time.Duration(minute) * time.Minute)}
		e.End = e.Start.Add(time.Minute)
		if point > 0 {
			i := iface(1)
			i.Point, i.PeerNamespace = Point(point), point
			e.Interfaces = []Interface{i}
			e.Totals = []Total{{Point: Point(point), Counters: Counters{100, 1}, Unplaced: Counters{100, 1}}}
		}
		if err := publisher.Publish(e); err != nil {
			t.Fatal(err)
		}
		s := table.Snapshot()
		checkIdentities(t, s)
		if len(s.Pods) == 0 {
			return Counters{}
		}
		return s.Pods[0].Counters[Transmit]
	}
	if got, want := send(0, 7), (Counters{100, 1}); got != want {
		t.Errorf("first: got %+v, want %+v", got, want)
	}
	old := d.pods[podAddress(1)]
	d.pods[podAddress(1)] = &Pod{UID: "again", Namespace: old.Namespace, Name: old.Name}
	if got, want := send(1, 8), (Counters{200, 2}); got != want {
		t.Errorf("made again: got %+v, want %+v", got, want)
	}
	if got, want := send(2, 0), (Counters{200, 2}); got != want {
		t.Errorf("gone: got %+v, want %+v still", got, want)
	}
	if got := send(9, 0); !got.IsZero() {
		t.Errorf("after the grace: got %+v, want no series", got)
	}
}

// What waited for a pod is shown once, even if the pod is gone by then and its
// series have no grace.
func TestLateBytesAreShownOnce(t *testing.T) {
	publisher, table, d := world(1, TableOptions{FlowLimit: 100, ExternalLimit: 100}, Optional{})
	pod := d.pods[podAddress(1)]
	delete(d.pods, podAddress(1))
	publish(t, publisher, epochOf(0, []Interface{iface(1)}, unplaced(1, 100)), epochOf(1, nil))
	d.pods[podAddress(1)] = pod
	publish(t, publisher, epochOf(2, nil))
	checkSent(t, table, map[string]uint64{"pod1": 100})
	publish(t, publisher, epochOf(3, nil))
	checkSent(t, table, map[string]uint64{})
}

// toPorts is an epoch in which the pod of point 1 sent a byte to an external
// address on each of the ports.
func toPorts(number int, ports ...int) *Epoch {
	e := epochOf(number, []Interface{iface(1)})
	for _, port := range ports {
		e.Records = append(e.Records, Record{Counters: Counters{1, 1}, First: e.Start, Last: e.End, Key: Key{
			Point: 1, EtherType: EtherTypeIPv4, Protocol: ProtocolTCP, Source: podAddress(1),
			Destination: netip.AddrFrom4([4]byte{203, 0, 113, byte(port)}), DestinationPort: uint16(port)}})
	}
	e.Totals = totalsOf(e.Records)
	return e
}

// ports returns the ports that have a row of their own, and how many external
// addresses have.
func ports(t *testing.T, table *Table) (ports []int, externals int) {
	t.Helper()
	s := table.Snapshot()
	checkIdentities(t, s)
	for _, flow := range s.Flows {
		if flow.Labels.Peer != folded {
			ports = append(ports, int(flow.Labels.PeerPort))
		}
	}
	for _, external := range s.Externals {
		if external.Labels.Country != folded {
			externals++
		}
	}
	slices.Sort(ports)
	return ports, externals
}

// A label set that was folded is not admitted when a place becomes free, as long
// as it goes on; another one is.
func TestFoldedSetsDoNotMove(t *testing.T) {
	publisher, table, _ := world(1, TableOptions{FlowLimit: 8, ExternalLimit: 100, FlowIdle: time.Minute, SeriesGrace: time.Hour}, Optional{PeerPort: true})
	check := func(when string, want ...int) {
		t.Helper()
		if got, _ := ports(t, table); !slices.Equal(got, want) {
			t.Errorf("%s: got ports %v, want %v", when, got, want)
		}
	}
	publish(t, publisher, toPorts(0, 1), toPorts(1, 1, 2), toPorts(2, 3))
	check("full", 1, 2)
	for number := 3; number < 60; number++ {
		publish(t, publisher, toPorts(number, 1, 3))
	}
	check("a place became free", 1)
	publish(t, publisher, toPorts(60, 3, 4))
	check("a new set", 1, 4)
	for number := 61; number < 61+24; number++ { // two minutes
		publish(t, publisher, toPorts(number, 1))
	}
	check("idle", 1)
	publish(t, publisher, toPorts(85, 3))
	check("the folded set after it was idle", 1, 3)
}

// The same of the external family, where the flow has a row of its own.
func TestFoldedExternalSetsDoNotMove(t *testing.T) {
	publisher, table, _ := world(1, TableOptions{FlowLimit: 100, ExternalLimit: 4, FlowIdle: time.Minute, SeriesGrace: time.Hour}, Optional{PeerPort: true, IP: true})
	publish(t, publisher, toPorts(0), toPorts(1, 1), toPorts(2, 3))
	for number := 3; number < 30; number++ {
		publish(t, publisher, toPorts(number, 3))
	}
	if _, got := ports(t, table); got != 0 {
		t.Errorf("a place became free: got %d rows, want none", got)
	}
	publish(t, publisher, toPorts(30, 3, 4))
	if _, got := ports(t, table); got != 1 {
		t.Errorf("a new set: got %d rows, want 1", got)
	}
}

// Sets that were folded beyond what is remembered do not move either.
func TestFoldedSetsThatAreNotRemembered(t *testing.T) {
	publisher, table, _ := world(1, TableOptions{FlowLimit: 4, ExternalLimit: 100, FlowIdle: time.Minute, SeriesGrace: time.Hour}, Optional{PeerPort: true})
	flood := make([]int, foldedSetsLimit)
	for i := range flood {
		flood[i] = 100 + i
	}
	// A span begins with epochs 0 and 12; the place is free from epoch 16 on.
	publish(t, publisher, toPorts(0), toPorts(3, 1), toPorts(12), toPorts(13, flood...), toPorts(14, 2))
	for number := 15; number < 40; number++ {
		publish(t, publisher, toPorts(number, 2))
	}
	if got, _ := ports(t, table); len(got) != 0 {
		t.Errorf("folded when the memory was full: got ports %v, want none", got)
	}
	publish(t, publisher, toPorts(40, 2, 3))
	if got, _ := ports(t, table); !slices.Equal(got, []int{3}) {
		t.Errorf("a new set later: got ports %v, want 3", got)
	}
}

func TestFoldedSetsAreBounded(t *testing.T) {
	var s foldedSets
	for hash := range uint64(3 * foldedSetsLimit) {
		s.add(hash)
	}
	if diff := cmp.Diff([]int{foldedSetsLimit, 0}, []int{len(s.recent), len(s.earlier)}); diff != "" {
		t.Errorf("remembered (-want +got):\n%s", diff)
	}
}
