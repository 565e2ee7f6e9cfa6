// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/podmeter/podmeter/internal/ktest"
)

// A measurement is the fastest of benchRounds, each of so many runs: other work
// on the machine can only make a round slower.
const (
	benchRounds = 7
	benchRuns   = 500_000
	// benchEntries is the size of a set, and benchRoom a number of flows that
	// fits into it with what per-CPU free lists keep back.
	benchEntries = 16_384
	benchRoom    = 10_000
	// benchBuckets are those of a CPU by default, where CPUs are few.
	benchBuckets = 1024
)

// benchCase is a packet whose cost is measured.
type benchCase struct {
	name   string
	packet []byte
	runs   int
	varied bool // each run sees another destination address
	empty  bool // the set is emptied after each round, so that nothing is evicted
	// displaced is whether another point owns the place of the packet's.
	displaced bool
}

func benchCases() []benchCase {
	ip4, ip6 := ktest.IPv4(src4, dst4, tcp), ktest.IPv6(src6, dst6, tcp)
	ports := ktest.Ports(40000, 443)
	hot := ktest.Packet(ktest.Ethernet(0x0800), ip4, ports)
	later := ktest.Fragment(ktest.IPv4(src4, dst4, udp), 185)
	return []benchCase{
		{name: "hot", packet: hot, runs: benchRuns},
		{name: "ipv6", packet: ktest.Packet(ktest.Ethernet(0x86dd), ip6, ports), runs: benchRuns},
		{name: "vlan", packet: ktest.Packet(ktest.Ethernet(0x8100), ktest.VLAN(7, 0x0800), ip4, ports), runs: benchRuns},
		{name: "fragment", packet: ktest.Packet(ktest.Ethernet(0x0800), later, ports), runs: benchRuns},
		{name: "displaced", packet: hot, runs: benchRuns, displaced: true},
		{name: "new_flow", packet: hot, runs: benchRoom, varied: true, empty: true},
		{name: "new_flow_evicts", packet: hot, runs: benchRuns, varied: true},
	}
}

// BenchmarkPacket measures what the meter takes for one packet above an empty
// TC program, both by BPF_PROG_TEST_RUN and in turns. Last it prints the line
// that hack/bench.sh and other scripts read.
func BenchmarkPacket(b *testing.B) {
	ktest.Privileged(b)
	var hot cost
	for _, c := range benchCases() {
		b.Run(c.name, func(b *testing.B) {
			got := c.measure(b)
			if c.name == "hot" {
				hot = got
			}
		})
	}
	if hot.rounds > 0 { // not if -bench left it out
		fmt.Printf("hot-flow ns above empty: %d (ratio %.2f)\n", hot.above(), hot.ratio())
	}
}

func (c benchCase) measure(b *testing.B) cost {
	objects := c.load(b)
	meter, nothing := objects.PodmeterTransmit, emptyProgram(b)
	if c.varied {
		meter, nothing = variedProgram(b, meter), variedProgram(b, nothing)
	}
	var best cost
	for b.Loop() {
		for valid := 0; valid < benchRounds; {
			if c.round(b, &best, meter, nothing) {
				valid++
			}
			if c.empty {
				if got := empty(b, objects); got != c.runs {
					b.Fatalf("got %d flows, want %d: some were evicted", got, c.runs)
				}
			}
		}
	}
	c.check(b, objects, uint64(best.rounds*c.runs))
	best.report(b)
	return best
}

// round measures both programs once, and says whether that is of use: a signal
// makes a round start again, and then the flows of its first part are not new.
func (c benchCase) round(b *testing.B, best *cost, meter, empty *ebpf.Program) bool {
	b.Helper()
	emptyTime, emptyValid := timeRuns(b, empty, c)
	meterTime, meterValid := timeRuns(b, meter, c)
	if !emptyValid || !meterValid {
		return false
	}
	best.add(emptyTime, meterTime)
	return true
}

// check fails the benchmark if the meter did something else than was meant to
// be measured.
func (c benchCase) check(b *testing.B, objects *MeterObjects, packets uint64) {
	b.Helper()
	totals := c.totals(b, objects)
	counted, inserted := totals.Packets, totals.Inserted
	// Rounds that were of no use have been counted as well. In a full set a
	// CPU's own list can keep a few flows from one round to the next, which has
	// the same addresses.
	least, most := uint64(1), uint64(1)
	if c.varied {
		least, most = packets-packets/1000, counted
	}
	if counted < packets || inserted < least || inserted > most {
		b.Fatalf("got %d packets, %d flows inserted, want %d or more, %d to %d", counted, inserted, packets, least, most)
	}
}

// totals returns what was counted, from where it is to be counted.
func (c benchCase) totals(b *testing.B, objects *MeterObjects) MeterTotalCounters {
	b.Helper()
	key := MeterTotalKey{Point: loopback}
	if c.displaced {
		return displacedTotals(b, objects, key)
	}
	return placeTotals(b, objects.Totals0, key)
}

// cost is the time of one run at best, of the meter and of an empty program.
// The kernel gives it in whole nanoseconds, cut off.
type cost struct {
	meter, empty time.Duration
	rounds       int
}

func (c *cost) add(empty, meter time.Duration) {
	if c.rounds++; c.rounds == 1 {
		c.empty, c.meter = empty, meter
	}
	c.empty, c.meter = min(c.empty, empty), min(c.meter, meter)
}

func (c *cost) above() int64 { return (c.meter - c.empty).Nanoseconds() }

func (c *cost) ratio() float64 { return float64(c.meter) / float64(max(c.empty, 1)) }

func (c *cost) report(b *testing.B) {
	b.ReportMetric(0, "ns/op") // of a whole measurement: leaves the line out
	b.ReportMetric(float64(c.empty.Nanoseconds()), "empty-ns/packet")
	b.ReportMetric(float64(c.meter.Nanoseconds()), "meter-ns/packet")
	b.ReportMetric(float64(c.above()), "above-ns/packet")
	b.ReportMetric(c.ratio(), "ratio")
}

// timeRuns returns the kernel's mean over one round, and whether no signal
// interrupted it.
func timeRuns(b *testing.B, program *ebpf.Program, c benchCase) (mean time.Duration, valid bool) {
	b.Helper()
	verdict, mean, valid := timeProgram(b, program, c)
	if verdict != unspec {
		b.Fatalf("verdict: got %d, want TC_ACT_UNSPEC", int32(verdict))
	}
	return mean, valid
}

// timeProgram is timeRuns for programs of any verdict.
func timeProgram(b *testing.B, program *ebpf.Program, c benchCase) (verdict uint32, mean time.Duration, valid bool) {
	b.Helper()
	valid = true
	verdict, mean, err := program.Benchmark(c.packet, c.runs, func() { valid = false })
	if err != nil {
		b.Fatalf("run program: %v", err)
	}
	return verdict, mean, valid
}

// load loads a collection whose set 0 has benchEntries and knows the point that
// packets of BPF_PROG_TEST_RUN come from.
func (c benchCase) load(b *testing.B) *MeterObjects {
	b.Helper()
	spec, err := LoadMeter()
	if err != nil {
		b.Fatalf("read object: %v", err)
	}
	spec.Maps[MeterMapFlows0].MaxEntries = benchEntries
	sizeFronts(b, spec, benchBuckets)
	var objects MeterObjects
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		b.Fatalf("load objects: %+v", err)
	}
	b.Cleanup(func() { objects.Close() })
	key := MeterTotalKey{Point: loopback}
	if !c.displaced {
		createPlace(b, objects.Totals0, key)
		return &objects
	}
	createPlace(b, objects.Totals0, MeterTotalKey{Point: loopback + totalPlaces/2})
	slots := make([]MeterTotalCounters, ebpf.MustPossibleCPU())
	if err := objects.Displaced0.Put(key, slots); err != nil {
		b.Fatalf("create displaced totals: %v", err)
	}
	return &objects
}

// emptyProgram returns what every TC program costs.
func emptyProgram(b *testing.B) *ebpf.Program {
	b.Helper()
	return newProgram(b, asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()})
}

// variedProgram returns a program that adds 1 to the packet's IPv4 destination
// address and then goes to the target. As the runs of one BPF_PROG_TEST_RUN
// share a packet, every run sees another flow, and the time of a system call
// stays out of it. Its own time is in the comparison's both sides.
func variedProgram(b *testing.B, target *ebpf.Program) *ebpf.Program {
	b.Helper()
	targets, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: target}},
	})
	if err != nil {
		b.Fatalf("create program array: %v", err)
	}
	b.Cleanup(func() { targets.Close() })
	const data, dataEnd = 76, 80 // of struct __sk_buff
	const address, end = 14 + 16, 14 + 20
	return newProgram(b, asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, data, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, dataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, end),
		asm.JGT.Reg(asm.R4, asm.R3, "short"),
		asm.LoadMem(asm.R5, asm.R2, address, asm.Word),
		asm.Add.Imm(asm.R5, 1),
		asm.StoreMem(asm.R2, address, asm.R5, asm.Word),
		asm.LoadMapPtr(asm.R2, targets.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("short"), // TC_ACT_SHOT: not what is expected
		asm.Return(),
	})
}

func newProgram(b *testing.B, instructions asm.Instructions) *ebpf.Program {
	b.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: instructions,
	})
	if err != nil {
		b.Fatalf("load program: %+v", err)
	}
	b.Cleanup(func() { program.Close() })
	return program
}
