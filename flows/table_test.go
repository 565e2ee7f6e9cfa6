// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"testing"
	"time"
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
		if s.Labels.PeerKind != PeerOther {
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
