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

// shadowCase is a series of readings after a beginning with 5 packets, 3 of them
// ours.
type shadowCase struct {
	name     string
	readings []reading
	hidden   byDirection
	apart    byDirection
	state    [2]bool // shadowed, closing
}

func shadowCases() []shadowCase {
	before := func(who ...string) func(reading) reading {
		return func(r reading) reading {
			r.looked, r.ahead = true, [flows.Directions][]string{who, nil}
			return r
		}
	}
	nobody, somebody := before(), before("TCX program 1")
	fewer := func(r reading) reading { // bytes than ours, as with XDP
		r.first[flows.Transmit].Bytes -= 5000
		r.second = r.first
		return r
	}
	return []shadowCase{
		{"nothing missing", []reading{somebody(look(1010, packets(9, 0), packets(7, 0))), somebody(look(2020, packets(9, 0), packets(7, 0)))},
			packets(0, 0), packets(0, 0), [2]bool{}},
		{"at once is too soon", []reading{somebody(look(1010, packets(9, 0), packets(6, 0)))},
			packets(0, 0), packets(0, 0), [2]bool{}},
		{"still missing a reading later", []reading{
			somebody(look(1010, packets(9, 0), packets(6, 0))), somebody(look(2020, packets(10, 0), packets(6, 0))),
		}, packets(1, 0), packets(0, 0), [2]bool{true, false}},
		{"too near to the last reading", []reading{
			somebody(look(1010, packets(9, 0), packets(6, 0))), somebody(look(1015, packets(9, 0), packets(6, 0))),
		}, packets(0, 0), packets(0, 0), [2]bool{true, false}},
		{"nobody before us: a difference", []reading{
			nobody(look(1010, packets(9, 0), packets(6, 0))), nobody(look(2020, packets(9, 0), packets(6, 0))),
		}, packets(0, 0), packets(1, 0), [2]bool{}},
		{"not looked: nothing follows", []reading{
			look(1010, packets(9, 0), packets(6, 0)), look(2020, packets(9, 0), packets(6, 0)),
		}, packets(0, 0), packets(0, 0), [2]bool{}},
		{"what differed before he came is not hidden", []reading{
			nobody(look(1010, packets(9, 0), packets(6, 0))), nobody(look(2020, packets(9, 0), packets(6, 0))),
			somebody(look(3030, packets(12, 0), packets(6, 0))), somebody(look(4040, packets(12, 0), packets(6, 0))),
		}, packets(3, 0), packets(1, 0), [2]bool{true, false}},
		{"he went between two readings", []reading{
			somebody(look(1010, packets(9, 0), packets(6, 0))), nobody(look(2020, packets(12, 0), packets(9, 0))),
			nobody(look(3030, packets(12, 0), packets(9, 0))),
		}, packets(0, 0), packets(1, 0), [2]bool{}},
		{"he was seen to hide and went", []reading{
			somebody(look(1010, packets(9, 0), packets(6, 0))), somebody(look(2020, packets(9, 0), packets(6, 0))),
			nobody(look(3030, packets(14, 0), packets(7, 0))), look(3050, packets(15, 0), packets(8, 0)),
		}, packets(5, 0), packets(0, 0), [2]bool{}},
		{"he went, and no two quiet readings agree yet", []reading{
			somebody(look(1010, packets(9, 0), packets(6, 0))), somebody(look(2020, packets(9, 0), packets(6, 0))),
			nobody(look(3030, packets(14, 0), packets(7, 0), packets(16, 0))),
		}, packets(1, 0), packets(0, 0), [2]bool{false, true}},
		{"bytes are never below 0", []reading{
			somebody(fewer(look(1010, packets(90, 0), packets(70, 0)))), somebody(fewer(look(2020, packets(90, 0), packets(70, 0)))),
		}, byDirection{{Bytes: 0, Packets: 18}}, packets(0, 0), [2]bool{true, false}},
	}
}

// A shadowed ledger: what is hidden becomes known once the interface had counted it
// a reading ago, if somebody was before us by either reading, and only then.
func TestLedgerShadow(t *testing.T) {
	for _, test := range shadowCases() {
		t.Run(test.name, func(t *testing.T) {
			var l ledger
			for at := range 2 { // settles with 2 packets before the attachment
				l.read(look(10*at, packets(5, 0), packets(3, 0)))
			}
			var known byDirection
			for _, r := range test.readings {
				known = known.add(l.read(r))
			}
			state := [2]bool{l.shadowed[flows.Transmit], l.closing[flows.Transmit]}
			if known != test.hidden || l.hidden != test.hidden || l.apart != test.apart || state != test.state {
				t.Errorf("got %v known, %v hidden, %v apart, %v, want %v, %v, %v", known, l.hidden, l.apart, state, test.hidden, test.apart, test.state)
			}
		})
	}
}

// What went round is what is surely more than before, once.
func TestBypassOfReadings(t *testing.T) {
	at := time.UnixMilli(1)
	count := func(n uint64) flows.Counters { return packets(n, 0)[flows.Transmit] }
	var b bypass
	b.estimate(count(7)) // too high, as packets came meanwhile
	b.estimate(count(5))
	b.estimate(count(6))
	if got := b.read(count(4), at); !got.IsZero() || b.lately(at) {
		t.Errorf("below what was there: got %v, want none", got)
	}
	if got := b.read(count(8), at); got != count(3) || !b.lately(at) || b.lately(at.Add(bypassedLately)) {
		t.Errorf("3 more: got %v, want %v, lately for %v", got, count(3), bypassedLately)
	}
	b.estimate(count(1)) // cannot be, after what was seen
	if got := b.read(count(9), at); got != count(1) || b.settled() != count(9) {
		t.Errorf("one more: got %v and %v settled, want %v and %v", got, b.settled(), count(1), count(9))
	}
}

// While what one direction transmits is hidden, what the other had received before
// the attachment is found out all the same.
func TestSettlesWhileOneDirectionIsHidden(t *testing.T) {
	a := &attachment{seeded: true}
	hidden := func(r reading) reading {
		r.looked, r.ahead = true, [flows.Directions][]string{{"TCX program 1"}, nil}
		return r
	}
	for _, r := range []reading{
		hidden(look(0, packets(5, 3), packets(1, 1))), hidden(look(20, packets(9, 4), packets(1, 1))),
		hidden(look(1020, packets(9, 5), packets(1, 2))), hidden(look(2040, packets(9, 5), packets(1, 2))),
	} {
		a.read(r)
	}
	if want := packets(8, 3); a.seeds != want || !a.ledger.settled {
		t.Errorf("got %v to be published, settled %t, want %v", a.seeds, a.ledger.settled, want)
	}
}
