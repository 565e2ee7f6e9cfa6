// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// packets makes counters of both directions, 100 bytes a packet.
func packets(transmit, receive uint64) byDirection {
	return byDirection{
		{Bytes: 100 * transmit, Packets: transmit},
		{Bytes: 100 * receive, Packets: receive},
	}
}

// look is a reading at a time in ms, quiet unless second says otherwise.
func look(at int, first, ours byDirection, second ...byDirection) reading {
	r := reading{first: first, second: first, ours: ours, at: time.UnixMilli(int64(at))}
	if len(second) > 0 {
		r.second = second[0]
	}
	return r
}

func TestLedgerSettles(t *testing.T) {
	for _, test := range []struct {
		name     string
		base     byDirection
		readings []reading
		want     byDirection
		settled  bool
	}{
		{"nothing ever passed: at once", byDirection{}, []reading{look(0, packets(0, 0), packets(0, 0))}, packets(0, 0), true},
		{"one reading is not enough", byDirection{}, []reading{look(0, packets(5, 3), packets(1, 1))}, packets(0, 0), false},
		{"two that agree", byDirection{}, []reading{
			look(0, packets(5, 3), packets(1, 1)), look(10, packets(7, 3), packets(3, 1)),
		}, packets(4, 2), true},
		{"too near to each other", byDirection{}, []reading{
			look(0, packets(5, 3), packets(1, 1)), look(9, packets(7, 3), packets(3, 1)),
		}, packets(0, 0), false},
		{"a packet in flight at the first", byDirection{}, []reading{
			look(0, packets(6, 3), packets(1, 1)), look(10, packets(6, 3), packets(2, 1)), look(20, packets(7, 3), packets(3, 1)),
		}, packets(4, 2), true},
		{"one that was not quiet says nothing", byDirection{}, []reading{
			look(0, packets(5, 3), packets(1, 1)),
			look(10, packets(7, 3), packets(3, 1), packets(8, 3)),
		}, packets(0, 0), false},
		{"what was published before is not again", packets(3, 2), []reading{
			look(0, packets(5, 3), packets(1, 1)), look(10, packets(5, 3), packets(1, 1)),
		}, packets(1, 0), true},
		{"never below 0", byDirection{}, []reading{
			look(0, packets(5, 3), packets(6, 1)), look(10, packets(5, 3), packets(6, 1)),
		}, packets(0, 2), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := ledger{base: test.base}
			var known byDirection
			for _, r := range test.readings {
				known = known.add(l.read(r))
			}
			if known != test.want || l.settled != test.settled {
				t.Errorf("got %v, settled %t, want %v, %t", known, l.settled, test.want, test.settled)
			}
		})
	}
}

func TestLedgerDifference(t *testing.T) {
	for _, test := range []struct {
		name     string
		readings []reading
		want     int64
	}{
		{"equal", []reading{look(20, packets(9, 0), packets(7, 0))}, 0},
		{"once is not believed", []reading{look(20, packets(9, 0), packets(6, 0))}, 0},
		{"twice", []reading{look(20, packets(9, 0), packets(6, 0)), look(30, packets(12, 0), packets(7, 0))}, 1},
		{"came while it was read", []reading{
			look(20, packets(9, 0), packets(9, 0), packets(12, 0)), look(30, packets(12, 0), packets(11, 0), packets(14, 0)),
		}, 0},
		{"more than came while it was read", []reading{
			look(20, packets(9, 0), packets(3, 0), packets(10, 0)), look(30, packets(12, 0), packets(4, 0), packets(14, 0)),
		}, 4},
		{"ours more", []reading{look(20, packets(9, 0), packets(9, 0)), look(30, packets(12, 0), packets(14, 0))}, -2},
	} {
		t.Run(test.name, func(t *testing.T) {
			var l ledger
			for at := range 2 { // settles with 2 packets before the attachment
				l.read(look(10*at, packets(5, 0), packets(3, 0)))
			}
			for _, r := range test.readings {
				l.read(r)
			}
			if got := l.difference[flows.Transmit]; got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

// Where we have no program the ledger is all that is known, and differs never.
func TestLedgerOfUnmeteredDirection(t *testing.T) {
	l := ledger{unmetered: [flows.Directions]bool{flows.Receive: true}}
	var known byDirection
	for at := range 4 {
		n := uint64(at)
		known = known.add(l.read(look(10*at, packets(5, 5+max(n, 1)), packets(3, 0))))
	}
	if want := packets(2, 8); known != want {
		t.Errorf("got %v, want %v", known, want)
	}
	if l.difference != [flows.Directions]int64{} {
		t.Errorf("difference: got %v, want none", l.difference)
	}
}

// What another device with the ifindex counts is not the attachment's.
func TestReadingOfAnotherDevice(t *testing.T) {
	a := &attachment{device: "c1", seeded: true}
	for at := range 3 {
		r := look(20*at, packets(9, 9), packets(0, 0))
		r.device = "c2"
		a.read(r)
	}
	if a.ledger.settled || a.seeds != (byDirection{}) {
		t.Errorf("got settled %t with %v to be published, want nothing known", a.ledger.settled, a.seeds)
	}
}
