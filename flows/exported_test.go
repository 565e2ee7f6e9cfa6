// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/podmeter/podmeter/internal/effort"
)

// pointLife is one life of an ifindex.
type pointLife struct {
	point    Point
	attached time.Time
}

// fedTo adds what an epoch feeds to each of its points.
func fedTo(fed map[pointLife][Directions]Counters, e *Epoch) {
	lives := make(map[Point]pointLife, len(e.Interfaces))
	for _, i := range e.Interfaces {
		lives[i.Point] = pointLife{i.Point, i.Attached}
	}
	for _, total := range e.Totals {
		sum := fed[lives[total.Point]]
		sum[total.Direction].Add(total.Counters)
		sum[total.Direction].Add(total.Seeded)
		fed[lives[total.Point]] = sum
	}
}

// checkExported checks that what is said of each point is what was fed to it, and that
// the pods' series are made of that and of nothing else.
func checkExported(t *testing.T, s *Snapshot, fed map[pointLife][Directions]Counters, since map[pointLife][Directions]Counters) {
	t.Helper()
	pods, parts := map[podDirection]Counters{}, map[podDirection]Counters{}
	sum(s.Pods, pods, nil)
	sum(s.Earlier, parts, nil)
	for _, e := range s.Exported {
		life := pointLife{e.Point, e.Attached}
		for d := range Direction(Directions) {
			got, want := e.Counters[d], fed[life][d]
			got.Add(e.Waiting[d])
			if e.Partial {
				want = want.Sub(since[life][d])
			}
			if got != want {
				t.Errorf("point %d, %v: got %+v exported and waiting, want %+v", e.Point, d, got, want)
			}
			if e.Pod != nil {
				key := podDirection{e.Pod.Name, d}
				part := parts[key]
				part.Add(e.Counters[d])
				parts[key] = part
			} else if !e.Counters[d].IsZero() {
				t.Errorf("point %d, %v: got %+v exported of an unbound one, want none", e.Point, d, e.Counters[d])
			}
		}
	}
	for key, want := range pods {
		if parts[key] != want {
			t.Errorf("%v: points and earlier ones: got %+v, want the pod's %+v", key, parts[key], want)
		}
	}
}

// Of each point it is known what the series of its pod have of it, whatever comes and
// goes, and these are the sum of that and of what forgotten points had. It stays so
// when another publisher goes on from a state, also from one of an earlier build, which
// did not record it.
func TestExportedOfEachPoint(t *testing.T) {
	for _, from := range []string{"one publisher", "restored", "restored from an earlier build"} {
		t.Run(from, func(t *testing.T) {
			partial, earlier := 0, 0
			for seed := range effort.Choose(60, uint64(12)) {
				l, fed, since := newLives(seed), make(map[pointLife][Directions]Counters), make(map[pointLife][Directions]Counters)
				for number := range 40 {
					e := l.epoch(number)
					publish(t, l.publisher, e)
					fedTo(fed, e)
					s := l.table.Snapshot()
					if checkExported(t, s, fed, since); t.Failed() {
						t.Fatalf("seed %d, epoch %d", seed, number)
					}
					earlier += len(s.Earlier)
					for _, exported := range s.Exported {
						partial += count(exported.Partial)
					}
					if number == 20 && from != "one publisher" {
						since = l.restart(t, from != "restored")
					}
				}
			}
			if earlier == 0 || (partial > 0) != (from == "restored from an earlier build") {
				t.Errorf("got %d names with earlier points and %d partial points: the test does not show the case", earlier, partial)
			}
		})
	}
}

// Of what waits it is known since when, and which addresses would bind it: by the best
// evidence that there is.
func TestWhatWaitsAndForWhom(t *testing.T) {
	routed, end, shown := podAddress(1), podAddress(2), podAddress(3)
	linkLocal := netip.MustParseAddr("fe80::1")
	for _, c := range []struct {
		name string
		i    Interface
		sent []netip.Addr
		want []netip.Addr
	}{
		{"nothing", opaque(1), nil, nil},
		{"link-local alone", opaque(1), []netip.Addr{linkLocal}, nil},
		{"shown", opaque(1), []netip.Addr{shown, linkLocal, end}, []netip.Addr{end, shown}},
		{"at its other end", ended(1, end, linkLocal), []netip.Addr{shown}, []netip.Addr{end}},
		{"routed to it", func() Interface { i := ended(1, end); i.Addresses = []netip.Addr{routed, routed}; return i }(), []netip.Addr{shown}, []netip.Addr{routed}},
	} {
		t.Run(c.name, func(t *testing.T) {
			publisher, table, _ := world(0, roomy, Optional{})
			publish(t, publisher, sends(0, []Interface{c.i}, nil), sends(1, []Interface{c.i}, map[int][]netip.Addr{1: c.sent}),
				sends(2, []Interface{c.i}, map[int][]netip.Addr{1: c.sent}))
			got := table.Snapshot().Exported[0]
			if diff := cmp.Diff(c.want, got.Needs, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("needs (-want +got):\n%s", diff)
			}
			if len(c.sent) > 0 != got.Waits() || got.Waits() && !got.Since.Equal(start.Add(5*time.Second)) {
				t.Errorf("got %t since %v, want since the first epoch with bytes", got.Waits(), got.Since)
			}
		})
	}
	many := make([]netip.Addr, 3*needsLimit)
	for i := range many {
		many[i] = podAddress(i + 1)
	}
	publisher, table, _ := world(0, roomy, Optional{})
	publish(t, publisher, sends(0, []Interface{ended(1, many...)}, map[int][]netip.Addr{1: many}))
	if got := len(table.Snapshot().Exported[0].Needs); got != needsLimit {
		t.Errorf("got %d addresses, want %d", got, needsLimit)
	}
}

// restart goes on with another publisher, and returns what was exported of each point
// before. The state may be one of an earlier build.
func (l *lives) restart(t *testing.T, old bool) map[pointLife][Directions]Counters {
	t.Helper()
	before := make(map[pointLife][Directions]Counters)
	points, _ := l.table.Exported()
	for _, e := range points {
		before[pointLife{e.Point, e.Attached}] = e.Counters
	}
	state := l.publisher.state()
	if old {
		for i := range state.Accounts {
			state.Accounts[i].Earlier = nil
		}
		for i := range state.Points {
			state.Points[i].Exported = nil
		}
	}
	table := NewTable(l.table.options)
	options := l.publisher.options
	options.Table = table
	l.table, l.publisher = table, NewPublisher(options)
	if err := l.publisher.Restore(state); err != nil {
		t.Fatal(err)
	}
	after, _ := l.table.Exported()
	if !old && fmt.Sprint(after) != fmt.Sprint(points) {
		t.Errorf("restored: got %+v, want %+v", after, points)
	}
	return before
}
