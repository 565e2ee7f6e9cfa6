// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/internal/ktest"
)

const (
	// batchPackets are run between two drains of the set, which has room for all.
	batchPackets = 512
	setEntries   = 4096
)

// comparison brings packets to the programs of a collection of its own and to
// gopacket, and reports where the two disagree.
type comparison struct {
	tb        testing.TB
	deliver   func(packets [][]byte)
	seen      func(packet []byte) []byte // what comes to the programs of it
	objects   *MeterObjects
	reference reference
	plain     reference // without any difference
	counted   map[MeterOutcome]uint64

	packets, agreed uint64   // agreed: with gopacket as it is
	used            []uint64 // packets by difference
}

// newComparison makes one by BPF_PROG_TEST_RUN.
func newComparison(tb testing.TB) *comparison {
	tb.Helper()
	c := newComparisonAt(tb, loopback)
	c.seen = func(packet []byte) []byte { return packet }
	c.deliver = func(packets [][]byte) {
		for _, packet := range packets {
			c.meter(packet)
		}
	}
	return c
}

// newComparisonAt makes one of packets of a point, without what delivers them.
func newComparisonAt(tb testing.TB, point uint32) *comparison {
	tb.Helper()
	c := &comparison{
		tb: tb, objects: loadSized(tb, setEntries, point),
	}
	c.plain.point, c.reference.point = point, point
	c.reference.differences = differences()
	c.used = make([]uint64, len(c.reference.differences))
	c.counted = c.outcomes()
	return c
}

// loadSized loads a collection whose set 0 has so many entries and knows the point.
func loadSized(tb testing.TB, entries, point uint32) *MeterObjects {
	tb.Helper()
	ktest.Privileged(tb)
	spec, err := LoadMeter()
	if err != nil {
		tb.Fatalf("read object: %v", err)
	}
	spec.Maps[MeterMapFlows0].MaxEntries = entries
	sizeFronts(tb, spec, testBuckets)
	var objects MeterObjects
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		tb.Fatalf("load objects: %+v", err)
	}
	tb.Cleanup(func() { objects.Close() })
	for _, direction := range []uint32{0, 1} {
		createPlace(tb, objects.Totals0, MeterTotalKey{Point: point, Direction: direction})
	}
	return &objects
}

// tally is what a set holds, with how parsing ended. Stamps are left out.
type tally struct {
	flows    map[MeterFlowKey]MeterFlowCounters
	outcomes map[MeterOutcome]uint64
}

func newTally() tally {
	return tally{flows: map[MeterFlowKey]MeterFlowCounters{}, outcomes: map[MeterOutcome]uint64{}}
}

func (t tally) add(v verdict, length int) {
	flow := t.flows[v.key]
	flow.Bytes += uint64(length)
	flow.Packets++
	t.flows[v.key] = flow
	t.outcomes[v.outcome]++
}

func (t tally) equal(other tally) bool {
	return maps.Equal(t.flows, other.flows) && maps.Equal(t.outcomes, other.outcomes)
}

func (t tally) String() string {
	var lines []string
	for key, flow := range t.flows {
		lines = append(lines, fmt.Sprintf("%+v: %d B, %d packets", key, flow.Bytes, flow.Packets))
	}
	for outcome, packets := range t.outcomes {
		lines = append(lines, fmt.Sprintf("outcome %d: %d packets", outcome, packets))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// direction has half of all packets received.
func direction(packet []byte) uint8 { return packet[0] & 1 }

// run runs packets and reports whether all was
// as expected. If not it runs them again one by one, to name those that differ.
func (c *comparison) run(packets [][]byte) bool {
	c.tb.Helper()
	want := newTally()
	for _, packet := range packets {
		seen := c.seen(packet)
		want.add(c.expect(seen), len(seen))
	}
	c.deliver(packets)
	got := c.drain()
	if got.equal(want) {
		return true
	}
	if len(packets) == 1 {
		c.tb.Errorf("packet %x\ndifferences: %s\ngot\n%v\nwant\n%v", packets[0], c.usedNames(), got, want)
		return false
	}
	same := true
	for _, packet := range packets {
		same = c.run([][]byte{packet}) && same
	}
	if same {
		c.tb.Errorf("%d packets differ together, but none alone: got\n%v\nwant\n%v", len(packets), got, want)
	}
	return false
}

// expect returns what the reference makes of a packet.
func (c *comparison) expect(packet []byte) verdict {
	v := c.reference.parse(packet, direction(packet))
	c.packets++
	if c.reference.used == 0 || c.plain.parse(packet, direction(packet)) == v {
		c.agreed++
	}
	for i := range c.used {
		c.used[i] += c.reference.used >> i & 1
	}
	return v
}

func (c *comparison) usedNames() string {
	var names []string
	for i, d := range c.reference.differences {
		if c.reference.used>>i&1 == 1 {
			names = append(names, d.name)
		}
	}
	return strings.Join(names, ", ")
}

func (c *comparison) meter(packet []byte) {
	c.tb.Helper()
	program := c.objects.PodmeterTransmit
	if direction(packet) == 1 {
		program = c.objects.PodmeterReceive
	}
	got, err := program.Run(&ebpf.RunOptions{Data: packet})
	if err != nil {
		c.tb.Fatalf("run program with %x: %v", packet, err)
	}
	if got != unspec {
		c.tb.Fatalf("verdict of %x: got %d, want TC_ACT_UNSPEC", packet, int32(got))
	}
}

// drain returns what was counted since the last drain, and empties the set.
func (c *comparison) drain() tally {
	c.tb.Helper()
	found := newTally()
	found.flows = flowsIn(c.tb, c.objects.Front0, c.objects.Flows0, 0)
	empty(c.tb, c.objects)
	outcomes := c.outcomes()
	for outcome, packets := range outcomes {
		if packets > c.counted[outcome] {
			found.outcomes[outcome] = packets - c.counted[outcome]
		}
	}
	c.counted = outcomes
	return found
}

func (c *comparison) outcomes() map[MeterOutcome]uint64 {
	c.tb.Helper()
	found := map[MeterOutcome]uint64{}
	for outcome := range MeterOutcomeOUTCOMES {
		var packets []uint64
		if err := c.objects.Outcomes.Lookup(outcome, &packets); err != nil {
			c.tb.Fatalf("look up outcome %d: %v", outcome, err)
		}
		for _, n := range packets {
			found[outcome] += n
		}
	}
	return found
}
