// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"fmt"
	"testing"
	"time"

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
