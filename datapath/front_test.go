// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
)

// perFlow adds up what is published of each flow.
type perFlow struct {
	tally
	flows map[uint16]flows.Counters
}

func (p *perFlow) Publish(epoch *flows.Epoch) error {
	seen := make(map[flows.Key]bool, len(epoch.Records))
	for _, r := range epoch.Records {
		if seen[r.Key] {
			return fmt.Errorf("two records of %v", r.Key)
		}
		seen[r.Key] = true
		c := p.flows[r.Key.SourcePort]
		c.Add(r.Counters)
		p.flows[r.Key.SourcePort] = c
	}
	return p.tally.Publish(epoch)
}

// Two CPUs count flows, many of which both see, in fronts that are too small or large
// enough, while sets are drained as fast as they can be: every packet is published once, and
// by its flow. Of what the map of flows has no room for the bytes are known.
func TestFrontUnderDrains(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ buckets, capacity, distinct uint32 }{
		{1, 1 << 16, 40}, {1, 1 << 16, 4000}, {1, 1 << 10, 4000},
		{512, 1 << 16, 40}, {512, 1 << 16, 4000}, {512, 1 << 10, 4000},
	} {
		t.Run(fmt.Sprintf("%d buckets %d entries %d flows", test.buckets, test.capacity, test.distinct), func(t *testing.T) {
			d, objects := newFrontedDrainer(t, test.capacity, test.buckets)
			testUnderDrains(t, d, objects, test.distinct, test.capacity > test.distinct, effort.Choose(500, 5), func(int) {})
		})
	}
}

// testUnderDrains sends while sets are drained so many times, does something after each, and
// compares what was published with what was sent.
func testUnderDrains(t *testing.T, d *drainer, objects *objects, distinct uint32, room bool, drains int, meanwhile func(drain int)) {
	sent := sendBeside(t, objects, distinct)
	got := perFlow{flows: make(map[uint16]flows.Counters)}
	for n := range drains {
		if err := d.drain(&got); err != nil {
			t.Fatalf("drain: %v", err)
		}
		meanwhile(n)
	}
	want := sent()
	drainTwice(t, d, &got)
	var all flows.Counters
	for _, c := range want {
		all.Add(c)
	}
	t.Logf("%d packets, %d records, residue %d, unplaced %d packets", all.Packets, got.records, got.residue.Packets, got.unplaced.Packets)
	named := got.placed
	named.Add(got.residue)
	named.Add(got.unplaced)
	if got.total != all || got.failed != 0 || named != all {
		t.Errorf("sent %v, got %+v", all, got.tally)
	}
	if !room {
		return
	}
	if got.placed != all {
		t.Errorf("got %v in flows, want all of %v", got.placed, all)
	}
	if diff := cmp.Diff(want, got.flows); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
}

// sendBeside sends packets of flows by their source ports from each CPU, some more often than others,
// until sent is called, which returns what was sent of each.
func sendBeside(t *testing.T, objects *objects, distinct uint32) (sent func() map[uint16]flows.Counters) {
	cpus := ktest.OnlineCPUs(t)
	all := make([]map[uint16]flows.Counters, len(cpus))
	var stop atomic.Bool
	var senders sync.WaitGroup
	for n, cpu := range cpus {
		all[n] = make(map[uint16]flows.Counters)
		senders.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			packet := ktest.Packet(ktest.Ethernet(0x0800), ktest.IPv4(netip.MustParseAddr("198.51.100.1"),
				netip.MustParseAddr("203.0.113.1"), flows.ProtocolUDP), ktest.Ports(1, 53))
			one := flows.Counters{Bytes: uint64(len(packet)), Packets: 1}
			err := ktest.OnCPU(cpu, func() error {
				for !stop.Load() {
					port := uint16(1 + min(random.Uint32N(distinct), random.Uint32N(distinct)))
					binary.BigEndian.PutUint16(packet[34:], port)
					// One run each: a signal would make a run of many begin again.
					if _, err := objects.PodmeterTransmit.Run(&ebpf.RunOptions{Data: packet}); err != nil {
						return err
					}
					c := all[n][port]
					c.Add(one)
					all[n][port] = c
				}
				return nil
			})
			if err != nil {
				t.Errorf("send: %v", err)
			}
		})
	}
	end := sync.OnceFunc(func() {
		stop.Store(true)
		senders.Wait()
	})
	t.Cleanup(end)
	return func() map[uint16]flows.Counters {
		end()
		sum := make(map[uint16]flows.Counters)
		for _, its := range all {
			for port, c := range its {
				c.Add(sum[port])
				sum[port] = c
			}
		}
		return sum
	}
}

// forgetful is a front whose reader leaves out one slot.
type forgetful struct{ flowMap }

func (f forgetful) read(from frozen, records []flows.Record) ([]flows.Record, error) {
	before := len(records)
	records, err := f.flowMap.read(from, records)
	return records[:max(len(records)-1, before)], err
}

// A slot that is not read is an error by its bytes, also beside many that are: it cannot
// pass as evicted.
func TestSkippedSlotIsAnError(t *testing.T) {
	t.Parallel()
	for _, buckets := range []uint32{1, 512} {
		d, objects := newFrontedDrainer(t, 4096, buckets)
		for port := range uint16(100) {
			send(t, objects, port+1)
		}
		for _, s := range d.sets {
			s.front = forgetful{s.front}
		}
		var got tally
		drainTwice(t, d, &got)
		if got.failed != sent {
			t.Errorf("%d buckets: conservation error: got %d, want the %d bytes of the slot", buckets, got.failed, sent)
		}
	}
}

// A flow that is pushed out of a front is of its own point and direction, of which one has its
// totals displaced.
func TestVictimsOfOtherPoints(t *testing.T) {
	t.Parallel()
	s := newSharing(t, 1)
	s.change(t, s.createPoint, sharers[1])
	for range 3 {
		for n, point := range sharers[:2] {
			// By then the slots of before may be taken.
			ktest.Await(t, "idle slots", ticked(t, s.drainer, stay))
			for port := range uint16(2) {
				err := s.host.Do(func() error { return sendFrom(s.objects, point, port+uint16(n)) })
				if err != nil {
					t.Fatalf("run program: %v", err)
				}
				addTo(s.want, flows.Point(point), flows.Counters{Bytes: sent, Packets: 1})
			}
		}
	}
	drainTwice(t, s.drainer, s.got)
	s.check(t)
}

// stay is STAY of bpf/front.h.
const stay = 64

// ticked is a condition: so many ticks have passed since it was first asked.
func ticked(t *testing.T, d *drainer, ticks uint32) func() bool {
	t.Helper()
	var first uint32
	return func() bool {
		now, err := d.clock.Run(&ebpf.RunOptions{Data: make([]byte, 14)})
		if err != nil {
			t.Fatalf("read clock: %v", err)
		}
		if first == 0 {
			first = now
		}
		return now-first > ticks
	}
}

// Slots of an epoch are told from those of others and from fresh memory, at the ends of what
// a tag can be.
func TestTagsOfEpochs(t *testing.T) {
	t.Parallel()
	for _, epoch := range []uint64{1, math.MaxUint32 - 2, math.MaxUint32 - 1, math.MaxUint32, math.MaxUint32 + 1} {
		d, objects := newTestDrainer(t, 4096)
		state, err := d.state.get()
		if err != nil {
			t.Fatal(err)
		}
		state.Epoch = epoch
		if err := d.state.variable.Set(state); err != nil {
			t.Fatal(err)
		}
		var got tally
		for n := range 6 {
			send(t, objects, 7)
			if err := d.drain(&got); err != nil {
				t.Fatalf("epoch %d: drain: %v", epoch, err)
			}
			if want := uint64(n); got.total.Packets != want || got.placed.Packets != want || got.failed != 0 {
				t.Errorf("epoch %d after %d drains: got %+v, want %d packets in flows", epoch, n+1, got, want)
			}
		}
	}
}

// A flow that CPUs count in their fronts, and in the map, is one record from the first packet to the last.
func TestJoin(t *testing.T) {
	t.Parallel()
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	record := func(port uint16, packets uint64, first, last int64) flows.Record {
		return flows.Record{Key: flows.Key{SourcePort: port}, Counters: flows.Counters{Bytes: 10 * packets, Packets: packets},
			First: at(first), Last: at(last)}
	}
	got := join([]flows.Record{record(1, 1, 5, 6), record(2, 2, 1, 9), record(1, 4, 3, 4), // of fronts
		record(3, 8, 1, 1), record(1, 16, 7, 8), record(2, 32, 0, 2)}, 3)
	want := []flows.Record{record(1, 21, 3, 8), record(2, 34, 0, 9), record(3, 8, 1, 1)}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Fronts and maps of both sets fit into the memory, on few and many possible CPUs.
func TestSizesByMemory(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		memory  uint64
		cpus    int
		buckets uint32
		most    uint64 // bytes of all
	}{
		{64 << 20, 2, 8192, 64 << 20},
		{64 << 20, 64, 744, 64 << 20},
		{64 << 20, 128, 372, 64 << 20},
		{64 << 20, 256, 186, 72 << 20},
		{1 << 20, 256, 64, 32 << 20}, // more than asked for: each CPU has its least
	} {
		buckets, entries := frontBuckets(test.memory, test.cpus), Capacity(test.memory, test.cpus)
		if buckets != test.buckets {
			t.Errorf("%d bytes, %d CPUs: got %d buckets, want %d", test.memory, test.cpus, buckets, test.buckets)
		}
		if got := frontBytes(buckets, test.cpus) + sets*uint64(entries)*entryBytes; got > test.most {
			t.Errorf("%d bytes, %d CPUs: got %d bytes in maps, want at most %d", test.memory, test.cpus, got, test.most)
		}
		for _, entries := range []uint64{100_000, 10_000_000} {
			if got := Capacity(memoryOf(entries, test.cpus), test.cpus); uint64(got) < entries {
				t.Errorf("%d CPUs: memory of %d entries has room for %d", test.cpus, entries, got)
			}
		}
	}
}
