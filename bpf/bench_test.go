// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
)

// A measurement is the fastest of benchRounds, each of so many runs: other work
// on the machine can only make a round slower.
const (
	benchRounds = 7
	benchRuns   = 500_000
	// benchEntries is the size of a set, and benchRoom a number of flows that
	// fits into it with what per-CPU free lists keep back.
	benchEntries = 131_072
	benchRoom    = 10_000
	// benchBuckets are those of a CPU by default, where CPUs are few.
	benchBuckets = 8192
)

// benchCase is a packet whose cost is measured.
type benchCase struct {
	name   string
	packet []byte
	runs   int
	// flows tells which flow each run's packet is of, by what is added to its destination
	// address; it is gone through again and again. Nil: all are of one.
	flows func() []uint32
	turns int  // how many flows they are in turns, for the plot
	empty bool // the set is emptied after each round, so that nothing is evicted
	// displaced is whether another point owns the place of the packet's.
	displaced bool
}

func benchCases() []benchCase {
	ip4, ip6 := ktest.IPv4(src4, dst4, tcp), ktest.IPv6(src6, dst6, tcp)
	ports := ktest.Ports(40000, 443)
	hot := ktest.Packet(ktest.Ethernet(0x0800), ip4, ports)
	later := ktest.Fragment(ktest.IPv4(src4, dst4, udp), 185)
	return []benchCase{
		{name: "hot", packet: hot, runs: benchRuns, turns: 1},
		{name: "ipv6", packet: ktest.Packet(ktest.Ethernet(0x86dd), ip6, ports), runs: benchRuns},
		{name: "vlan", packet: ktest.Packet(ktest.Ethernet(0x8100), ktest.VLAN(7, 0x0800), ip4, ports), runs: benchRuns},
		{name: "fragment", packet: ktest.Packet(ktest.Ethernet(0x0800), later, ports), runs: benchRuns},
		{name: "displaced", packet: hot, runs: benchRuns, displaced: true},
		{name: "flows_64", packet: hot, runs: benchRuns, flows: inTurns(64), turns: 64},
		{name: "flows_1000", packet: hot, runs: benchRuns, flows: inTurns(1000), turns: 1000},
		{name: "flows_10000", packet: hot, runs: benchRuns, flows: inTurns(10_000), turns: 10_000},
		{name: "flows_100000", packet: hot, runs: benchRuns, flows: inTurns(100_000), turns: 100_000},
		{name: "zipf_10000", packet: hot, runs: benchRuns, flows: zipf(10_000)},
		{name: "zipf_100000", packet: hot, runs: benchRuns, flows: zipf(100_000)},
		{name: "new_flow", packet: hot, runs: benchRoom, flows: inTurns(benchRoom), empty: true},
		{name: "new_flow_evicts", packet: hot, runs: benchRuns, flows: inTurns(4 * benchRuns)},
	}
}

// inTurns is one packet of each of n flows, again and again.
func inTurns(n uint32) func() []uint32 {
	return func() []uint32 {
		all := make([]uint32, n)
		for i := range all {
			all[i] = uint32(i)
		}
		return all
	}
}

// zipf is packets of n flows by Zipf's law with an exponent of 1: the k-th flow has 1/k of
// the packets of the first.
func zipf(n int) func() []uint32 {
	return func() []uint32 {
		cumulative := make([]float64, n)
		sum := 0.0
		for k := range cumulative {
			sum += 1 / float64(k+1)
			cumulative[k] = sum
		}
		random := rand.New(rand.NewPCG(1, 1))
		all := make([]uint32, benchRuns)
		for i := range all {
			k, _ := slices.BinarySearch(cumulative, random.Float64()*sum)
			all[i] = uint32(k)
		}
		return all
	}
}

// BenchmarkPacket measures what the meter takes for one packet above an empty
// TC program, all by BPF_PROG_TEST_RUN and in turns: beside it the meter of the first
// layout, one as they are usually made, and that of PEER. Last it prints the line
// that hack/bench.sh and other scripts read.
func BenchmarkPacket(b *testing.B) {
	ktest.Privileged(b)
	var hot costs
	var turns []measured
	for _, c := range benchCases() {
		b.Run(c.name, func(b *testing.B) {
			got := c.measure(b)
			if c.name == "hot" {
				hot = got
			}
			if c.turns > 0 {
				turns = append(turns, measured{c.turns, got})
			}
		})
	}
	plot(b, turns)
	if hot.rounds > 0 { // not if -bench left it out
		fmt.Printf("hot-flow ns above empty: %d (ratio %.2f)\n", hot.above(this), hot.ratio(this, nothing))
	}
}

func (c benchCase) measure(b *testing.B) costs {
	all := c.contenders(b)
	rewind := func() {}
	if c.flows != nil {
		next := newSequence(b, c.flows())
		for _, other := range all {
			other.program = next.before(b, other.program)
		}
		rewind = next.rewind
	}
	best := c.rounds(b, all, rewind)
	for _, other := range all {
		if other.check != nil {
			other.check(uint64(best.rounds * c.runs))
		}
	}
	best.report(b)
	return best
}

// rounds measures all in turns, on one CPU, as each has a front of its own.
func (c benchCase) rounds(b *testing.B, all []*contender, rewind func()) (best costs) {
	b.Helper()
	cpu := ktest.OnlineCPUs(b)[0]
	for b.Loop() {
		for valid := 0; valid < benchRounds; {
			err := ktest.OnCPU(cpu, func() error {
				ok, err := c.round(&best, all, rewind)
				if ok {
					valid++
				}
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
			for _, other := range all {
				if c.empty && other.empty != nil {
					other.empty()
				}
			}
		}
	}
	return best
}

// round measures all programs once, and says whether that is of use: a signal
// makes a round start again, and then the flows of its first part are not new.
func (c benchCase) round(best *costs, all []*contender, rewind func()) (valid bool, err error) {
	took := make(map[string]time.Duration)
	valid = true
	for _, other := range all {
		rewind()
		verdict, mean, err := other.program.Benchmark(c.packet, c.runs, func() { valid = false })
		if err != nil {
			return false, fmt.Errorf("run %s: %w", other.name, err)
		}
		if verdict != other.verdict && other.name != peer {
			return false, fmt.Errorf("verdict of %s: got %d, want %d", other.name, int32(verdict), int32(other.verdict))
		}
		took[other.name] = mean
	}
	if valid {
		best.add(took)
	}
	return valid, nil
}

// costs is the time of one run at best, by contender. The kernel gives it in whole
// nanoseconds, cut off.
type costs struct {
	best   map[string]time.Duration
	rounds int
}

func (c *costs) add(took map[string]time.Duration) {
	if c.rounds++; c.rounds == 1 {
		c.best = took
		return
	}
	for name, mean := range took {
		c.best[name] = min(c.best[name], mean)
	}
}

func (c *costs) above(name string) int64 { return (c.best[name] - c.best[nothing]).Nanoseconds() }

func (c *costs) ratio(name, to string) float64 {
	return float64(c.best[name]) / float64(max(c.best[to], 1))
}

// report prints what each takes above the empty program, the ratio of whole runs, and that to
// the first layout's meter.
func (c *costs) report(b *testing.B) {
	b.ReportMetric(0, "ns/op") // of a whole measurement: leaves the line out
	b.ReportMetric(float64(c.best[nothing].Nanoseconds()), "empty-ns/packet")
	for _, name := range []string{this, first, usual, peer} {
		if _, measured := c.best[name]; measured {
			b.ReportMetric(float64(c.above(name)), name+"-above-ns/packet")
		}
	}
	b.ReportMetric(c.ratio(this, nothing), "ratio")
	if _, measured := c.best[first]; measured {
		b.ReportMetric(c.ratio(this, first), "ratio-to-first")
	}
}
