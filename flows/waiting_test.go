// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Series begin with the epoch of their first byte, not with the one in which
// their pod became known.
func TestWhatWaitedKeepsItsBeginning(t *testing.T) {
	publisher, table, d := world(1, roomy, Optional{})
	pod := d.pods[podAddress(1)]
	delete(d.pods, podAddress(1))
	first := epochOf(1, []Interface{iface(1)}, Total{Point: 1, Direction: Receive, Counters: Counters{300, 3}})
	first.Records = []Record{{Counters: Counters{300, 3}, First: first.Start, Last: first.End, Key: Key{Point: 1, Direction: Receive,
		EtherType: EtherTypeIPv4, Source: netip.MustParseAddr("203.0.113.9"), Destination: podAddress(1)}}}
	publish(t, publisher, epochOf(0, []Interface{iface(1)}, Total{Point: 1}), first,
		epochOf(2, []Interface{iface(1)}, unplaced(1, 50)), epochOf(3, []Interface{iface(1)}, unplaced(1, 50)))
	d.pods[podAddress(1)] = pod
	publish(t, publisher, epochOf(60, []Interface{iface(1)}, unplaced(1, 50)))

	s := table.Snapshot()
	got := map[string][Directions]time.Time{"pod": s.Pods[0].Created, "external": s.Externals[0].Created}
	for _, flow := range s.Flows {
		got[flow.Labels.PeerKind.String()] = flow.Created
	}
	sent, received := epochOf(2, nil).Start, first.Start
	want := map[string][Directions]time.Time{
		"pod": {sent, received}, "external": {Receive: received},
		PeerExternal.String(): {Receive: received}, PeerUnattributed.String(): {Transmit: sent},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
}

// The limit of rows that wait folds new ones only.
func TestRowsThatWaitGoOn(t *testing.T) {
	publisher, table, d := world(1, TableOptions{FlowLimit: 1 << 20, ExternalLimit: 1, FlowIdle: time.Hour}, Optional{PeerPort: true})
	pod := d.pods[podAddress(1)]
	delete(d.pods, podAddress(1))
	flood := epochOf(0, []Interface{iface(1)})
	for port := range waitingLimit + 1 {
		flood.Records = append(flood.Records, Record{Counters: Counters{1, 1}, First: start, Last: start, Key: Key{
			Point: 1, EtherType: EtherTypeIPv4, Protocol: ProtocolTCP, Source: podAddress(1),
			Destination: netip.MustParseAddr("10.1.0.9"), DestinationPort: uint16(port + 1)}})
	}
	flood.Totals = totalsOf(flood.Records)
	again := epochOf(1, []Interface{iface(1)}, Total{Point: 1, Counters: Counters{1000, 1}})
	again.Records = []Record{flood.Records[0]}
	again.Records[0].Counters = Counters{1000, 1}
	publish(t, publisher, flood, again)
	d.pods[podAddress(1)] = pod
	publish(t, publisher, epochOf(2, []Interface{iface(1)}))

	s := table.Snapshot()
	checkIdentities(t, s)
	got := map[uint16]uint64{}
	for _, flow := range s.Flows {
		if flow.Labels.PeerPort <= 1 {
			got[flow.Labels.PeerPort] = flow.Counters[Transmit].Bytes
			if flow.Labels.Protocol != ProtoTCP {
				t.Errorf("protocol of port %d: got %v, want tcp", flow.Labels.PeerPort, flow.Labels.Protocol)
			}
		}
	}
	if diff := cmp.Diff(map[uint16]uint64{0: 1, 1: 1001}, got); diff != "" {
		t.Errorf("bytes by port, 0 for unattributed (-want +got):\n%s", diff)
	}
}

// A series that bytes of several interfaces come to begins with the first one's.
func TestBeginningIsTheEarliest(t *testing.T) {
	for _, c := range []struct {
		name string
		// The epochs in which the addresses become known, those of the first
		// bytes, and the one that the series begins with in the end.
		known, first [2]int
		want         int
	}{
		{"both late", [2]int{9, 9}, [2]int{3, 2}, 2},
		{"one late", [2]int{0, 9}, [2]int{3, 2}, 2},
		{"the younger late", [2]int{0, 9}, [2]int{2, 3}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			publisher, table, d := world(1, roomy, Optional{})
			pod := d.pods[podAddress(1)]
			delete(d.pods, podAddress(1))
			for number := range 10 {
				e := epochOf(number, nil)
				for i := range 2 {
					e.Interfaces = append(e.Interfaces, iface(i+1))
					if number >= c.known[i] {
						d.pods[podAddress(i+1)] = pod
					}
					if number >= c.first[i] {
						e.Totals = append(e.Totals, unplaced(Point(i+1), 10))
					}
				}
				publish(t, publisher, e)
			}
			got, want := table.Snapshot().Pods[0].Created[Transmit], epochOf(c.want, nil).Start
			if !got.Equal(want) {
				t.Errorf("created: got %v, want %v", got, want)
			}
		})
	}
}
