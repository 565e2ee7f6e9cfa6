// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// sharers are points with the same place in the totals.
var sharers = [3]uint32{testPoint, testPoint + 1024, testPoint + 2048}

func TestSharersShareAPlace(t *testing.T) {
	t.Parallel()
	for direction := range uint32(flows.Directions) {
		first := bpf.MeterTotalKey{Point: sharers[0], Direction: direction}
		for _, point := range sharers[1:] {
			if got, want := (bpf.MeterTotalKey{Point: point, Direction: direction}).Place(), first.Place(); got != want {
				t.Errorf("place of point %d: got %d, want %d", point, got, want)
			}
		}
	}
}

// pointTally is a sink that adds up what each point transmitted.
type pointTally struct {
	total, placed map[uint32]flows.Counters
	failed        uint64
}

func newPointTally() *pointTally {
	return &pointTally{total: make(map[uint32]flows.Counters), placed: make(map[uint32]flows.Counters)}
}

func (p *pointTally) Publish(epoch *flows.Epoch) error {
	for _, total := range epoch.Totals {
		if total.Direction == flows.Transmit {
			addTo(p.total, total.Point, total.Counters)
		}
	}
	for _, record := range epoch.Records {
		addTo(p.placed, record.Key.Point, record.Counters)
	}
	p.failed += epoch.ConservationError
	return nil
}

func addTo(sums map[uint32]flows.Counters, point flows.Point, c flows.Counters) {
	sum := sums[uint32(point)]
	sum.Add(c)
	sums[uint32(point)] = sum
}

// sharing is a drainer with a namespace that has an interface for each sharer.
type sharing struct {
	*drainer
	objects *objects
	host    *ktest.Namespace
	want    map[uint32]flows.Counters
	got     *pointTally
}

func newSharing(t *testing.T, buckets uint32) *sharing {
	t.Helper()
	d, objects := newFrontedDrainer(t, 4096, buckets)
	s := &sharing{drainer: d, objects: objects, host: ktest.NewNamespace(t),
		want: make(map[uint32]flows.Counters), got: newPointTally()}
	pod := ktest.NewNamespace(t)
	s.host.VethAt(t, int(sharers[1]), "veth1", pod, "eth1")
	s.host.VethAt(t, int(sharers[2]), "veth2", pod, "eth2")
	return s
}

// send lets packets of a point be counted, or not, and drains.
func (s *sharing) send(t *testing.T, point uint32, packets int, counted bool) {
	t.Helper()
	for range packets {
		err := s.host.Do(func() error { return sendFrom(s.objects, point, 7) })
		if err != nil {
			t.Fatalf("run program: %v", err)
		}
	}
	if counted {
		addTo(s.want, flows.Point(point), flows.Counters{Bytes: uint64(packets) * sent, Packets: uint64(packets)})
	}
	drainTwice(t, s.drainer, s.got)
}

func (s *sharing) change(t *testing.T, what func(uint32) error, point uint32) {
	t.Helper()
	if err := what(point); err != nil {
		t.Fatalf("point %d: %v", point, err)
	}
}

func (s *sharing) check(t *testing.T) {
	t.Helper()
	if diff := cmp.Diff(s.want, s.got.placed); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
	for point, total := range s.got.total {
		if total.IsZero() { // it exists, and nothing came
			delete(s.got.total, point)
		}
	}
	if diff := cmp.Diff(s.want, s.got.total); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
	if s.got.failed != 0 {
		t.Errorf("conservation error: got %d bytes, want 0", s.got.failed)
	}
	checkAligned(t, s.drainer)
}

// checkAligned expects each point that has totals, and no other, to have room for what is
// added to them.
func checkAligned(t *testing.T, d *drainer) {
	t.Helper()
	for n, s := range d.sets {
		there, err := s.readTotals()
		if err != nil {
			t.Fatalf("read totals: %v", err)
		}
		more, err := s.more.read()
		if err != nil {
			t.Fatalf("read more: %v", err)
		}
		for key := range there {
			if _, ok := more[key]; !ok {
				t.Errorf("set %d: %+v has totals alone", n, key)
			}
			delete(more, key)
		}
		if len(more) > 0 {
			t.Errorf("set %d: %v have no totals", n, more)
		}
	}
}

// A build that knows totals alone makes points and lets others go meanwhile, and the place
// of one that went is another's.
func TestTotalsAreAligned(t *testing.T) {
	t.Parallel()
	s := newSharing(t, 512)
	s.change(t, s.createPoint, sharers[1])
	for _, set := range s.sets {
		for direction := range uint32(flows.Directions) {
			key := func(point uint32) bpf.MeterTotalKey {
				return bpf.MeterTotalKey{Point: point, Direction: direction}
			}
			err := errors.Join(set.counters.delete(key(sharers[0])), set.counters.create(key(sharers[2])), set.counters.create(key(7)))
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.align(); err != nil {
		t.Fatal(err)
	}
	checkAligned(t, s.drainer)
	s.change(t, s.deletePoint, sharers[1])
	s.change(t, s.deletePoint, sharers[2])
	checkAligned(t, s.drainer)
}

// Points with the same place are counted each for itself, and a place that is
// taken over begins from zero.
func TestPlaceIsTakenOver(t *testing.T) {
	t.Parallel()
	s := newSharing(t, 512)
	first, second, third := sharers[0], sharers[1], sharers[2] // the first has the place
	s.send(t, second, 1, false)                                // not created yet
	s.change(t, s.createPoint, second)
	s.send(t, first, 1, true)
	s.send(t, second, 2, true)
	s.check(t)

	s.change(t, s.deletePoint, first)
	s.change(t, s.createPoint, third) // takes the place over
	s.change(t, s.createPoint, second)
	s.send(t, third, 3, true)
	s.send(t, second, 4, true)
	s.send(t, first, 5, false)
	s.check(t)

	s.change(t, s.deletePoint, third)
	s.change(t, s.createPoint, second) // stays displaced, beside a free place
	s.send(t, second, 6, true)
	s.send(t, third, 7, false)
	s.change(t, s.createPoint, third)
	s.send(t, third, 8, true)
	s.change(t, s.deletePoint, second)
	s.send(t, second, 9, false)
	s.check(t)
}

// What was displaced and what was not is told by the maps alone.
func TestTotalsAreReadFromTheMaps(t *testing.T) {
	t.Parallel()
	s := newSharing(t, 512)
	s.change(t, s.createPoint, sharers[1])
	s.send(t, sharers[0], 1, true)
	s.send(t, sharers[1], 2, true)
	again := newTotals(totalMapsOf(&s.objects.MeterMaps)[0], ebpf.MustPossibleCPU())
	want, err := s.sets[0].readTotals()
	if err != nil {
		t.Fatalf("read totals: %v", err)
	}
	got, err := again.readTotals()
	if err != nil {
		t.Fatalf("read totals again: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got) != 2*flows.Directions {
		t.Errorf("%d totals (-want +got):\n%s", len(got), diff)
	}
	for key, total := range got {
		one, err := again.readTotal(key)
		if err != nil || one != total {
			t.Errorf("totals of %+v alone: got %+v, %v, want %+v", key, one, err, total)
		}
	}
}
