// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

const testPoint = 1 // the ifindex of packets in BPF_PROG_TEST_RUN

// tally is a sink that adds up what it is given.
type tally struct {
	total, placed, residue, unplaced flows.Counters
	failed                           uint64
	records                          int
}

func (l *tally) Publish(epoch *flows.Epoch) error {
	for _, total := range epoch.Totals {
		l.total.Add(total.Counters)
		l.residue.Add(total.Residue)
		l.unplaced.Add(total.Unplaced)
	}
	for _, record := range epoch.Records {
		l.placed.Add(record.Counters)
	}
	l.records += len(epoch.Records)
	l.failed += epoch.ConservationError
	return nil
}

func newTestDrainer(t testing.TB, capacity uint32) (*drainer, *objects) {
	t.Helper()
	_, buckets := sizes(DefaultMapMemory, ebpf.MustPossibleCPU())
	if entries := linked(linkedEntries); entries != 0 {
		capacity = entries
	}
	return newFrontedDrainer(t, capacity, buckets)
}

// newFrontedDrainer returns one whose fronts have so many buckets for each CPU.
func newFrontedDrainer(t testing.TB, capacity, buckets uint32) (*drainer, *objects) {
	t.Helper()
	return newDrainerOf(t, testBuild(), capacity, buckets)
}

// newDrainerOf returns one of a build's programs.
func newDrainerOf(t testing.TB, build build, capacity, buckets uint32) (*drainer, *objects) {
	t.Helper()
	ktest.Privileged(t)
	objects, err := build.testObjects(capacity, buckets)
	if err != nil {
		t.Fatalf("load objects: %v", err)
	}
	t.Cleanup(func() { objects.close() })
	grace, err := newGrace()
	if err != nil {
		t.Fatalf("make grace: %v", err)
	}
	t.Cleanup(func() { grace.close() })
	d := newDrainer(&objects.MeterObjects, build.layouts[0], grace, ebpf.MustPossibleCPU())
	if err := d.createPoint(testPoint); err != nil {
		t.Fatalf("create point: %v", err)
	}
	return d, objects
}

// send runs a UDP packet through the transmit program, at testPoint.
func send(t testing.TB, objects *objects, port uint16) {
	t.Helper()
	if err := sendFrom(objects, testPoint, port); err != nil {
		t.Fatalf("run program: %v", err)
	}
}

// sendFrom sends from an interface of the namespace that the thread is in.
func sendFrom(objects *objects, point uint32, port uint16) error {
	packet := ktest.Packet(ktest.Ethernet(0x0800), ktest.IPv4(netip.MustParseAddr("198.51.100.1"),
		netip.MustParseAddr("203.0.113.1"), flows.ProtocolUDP), ktest.Ports(port, 53))
	skb := struct { // the beginning of struct __sk_buff
		_       [40]byte
		IfIndex uint32
	}{IfIndex: point}
	_, err := objects.PodmeterTransmit.Run(&ebpf.RunOptions{Data: packet, Context: skb})
	return err
}

const sent = 14 + 20 + 20 // bytes of a packet of send

func drainTwice(t testing.TB, d *drainer, sink Sink) {
	t.Helper()
	for range 2 {
		if err := d.drain(sink); err != nil {
			t.Fatalf("drain: %v", err)
		}
	}
}

func TestDrainPublishesEachPacketOnce(t *testing.T) {
	t.Parallel()
	d, objects := newTestDrainer(t, 4096)
	var got tally
	want := tally{}
	for round := range 5 {
		for port := range uint16(100) {
			send(t, objects, port+1)
			send(t, objects, port+1)
		}
		want.total.Add(flows.Counters{Bytes: 200 * sent, Packets: 200})
		want.placed = want.total
		want.records += 100
		drainTwice(t, d, &got)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(tally{})); diff != "" {
			t.Fatalf("round %d (-want +got):\n%s", round, diff)
		}
	}
}

// With an LRU that is too small the residue is what is missing, and no more.
func TestEvictionIsResidue(t *testing.T) {
	t.Parallel()
	d, objects := newFrontedDrainer(t, 512, 1)
	var got tally
	const packets = 5000
	for port := range uint16(packets) {
		send(t, objects, port+1)
	}
	drainTwice(t, d, &got)
	if want := (flows.Counters{Bytes: packets * sent, Packets: packets}); got.total != want {
		t.Errorf("total: got %+v, want %+v", got.total, want)
	}
	if got.residue.IsZero() {
		t.Error("residue: got none, want some: the LRU was to evict")
	}
	if want := got.total.Sub(got.placed).Sub(got.unplaced); got.residue != want {
		t.Errorf("residue: got %+v, want what is missing, %+v", got.residue, want)
	}
	if got.failed != 0 {
		t.Errorf("conservation error: got %d, want 0", got.failed)
	}
}

// A drain that leaves an entry unread is caught when the set is verified empty.
func TestSkippedEntryMovesTheError(t *testing.T) {
	t.Parallel()
	d, objects := newFrontedDrainer(t, 4096, 1)
	for port := range uint16(100) {
		send(t, objects, port+1)
	}
	var got tally
	if err := d.drain(&got); err != nil {
		t.Fatalf("drain: %v", err)
	}
	skip := sinkFunc(func(epoch *flows.Epoch) error {
		frozen := d.sets[epoch.Number&1].flows.(*flowTable[bpf.MeterFlowKey, bpf.MeterFlowCounters])
		frozen.keys = frozen.keys[:len(frozen.keys)-1]
		return got.Publish(epoch)
	})
	if err := d.drain(skip); err != nil {
		t.Fatalf("drain: %v", err)
	}
	if err := d.drain(&got); err != nil {
		t.Fatalf("drain: %v", err)
	}
	if got.failed != sent {
		t.Errorf("conservation error: got %d, want the %d bytes of the skipped entry", got.failed, sent)
	}
}

type sinkFunc func(*flows.Epoch) error

func (f sinkFunc) Publish(epoch *flows.Epoch) error { return f(epoch) }

// What a sink refuses is offered again, and nothing is lost.
func TestRefusedEpochIsOfferedAgain(t *testing.T) {
	t.Parallel()
	d, objects := newTestDrainer(t, 4096)
	var got tally
	send(t, objects, 7)
	if err := d.drain(&got); err != nil {
		t.Fatalf("drain: %v", err)
	}
	refuse := sinkFunc(func(*flows.Epoch) error { return ebpf.ErrNotSupported })
	for range 3 {
		if err := d.drain(refuse); err == nil {
			t.Fatal("drain into a refusing sink: got no error")
		}
		send(t, objects, 8)
	}
	drainTwice(t, d, &got)
	want := flows.Counters{Bytes: 4 * sent, Packets: 4}
	if got.placed != want || got.total != want || got.failed != 0 {
		t.Errorf("got %+v, want 4 packets placed, no error", got)
	}
}

func TestBothWaysToWait(t *testing.T) {
	t.Parallel()
	ktest.Privileged(t)
	membarrier, err := newGrace()
	if err != nil {
		t.Fatalf("make grace: %v", err)
	}
	fallback, err := newMapGrace()
	if err != nil {
		t.Fatalf("make fallback: %v", err)
	}
	for name, g := range map[string]*grace{"first choice": membarrier, "map of maps": fallback} {
		if err := g.wait(); err != nil {
			t.Errorf("%s: wait: %v", name, err)
		}
		if err := g.close(); err != nil {
			t.Errorf("%s: close: %v", name, err)
		}
	}
}

// A point that was forgotten counts nothing more, and begins again from zero.
func TestDeletedPointBeginsAgain(t *testing.T) {
	t.Parallel()
	d, objects := newTestDrainer(t, 4096)
	var got tally
	send(t, objects, 7)
	drainTwice(t, d, &got)
	if err := d.deletePoint(testPoint); err != nil {
		t.Fatalf("delete point: %v", err)
	}
	send(t, objects, 7)
	if err := d.createPoint(testPoint); err != nil {
		t.Fatalf("create point: %v", err)
	}
	send(t, objects, 7)
	drainTwice(t, d, &got)
	want := flows.Counters{Bytes: 2 * sent, Packets: 2}
	if got.total != want || got.placed != want || got.failed != 0 {
		t.Errorf("got %+v, want 2 packets placed, no error", got)
	}
}

func (b build) testObjects(capacity, buckets uint32) (*objects, error) {
	spec, err := b.sizedSpec(capacity, buckets, ebpf.MustPossibleCPU())
	if err != nil {
		return nil, err
	}
	return loadObjects(spec, nil)
}
