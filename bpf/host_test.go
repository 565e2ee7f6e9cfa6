// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
)

// hostPoint is the point of the programs of cgroups in tests.
const hostPoint = 1<<31 + 7

// loadHost loads the programs of a cgroup, which count into the maps of the meter.
func loadHost(tb testing.TB, meter *MeterObjects) *HostPrograms {
	tb.Helper()
	spec, err := LoadHost()
	if err != nil {
		tb.Fatalf("read object: %v", err)
	}
	if err := spec.Variables[HostVarHostPoint].Set(uint32(hostPoint)); err != nil {
		tb.Fatalf("set point: %v", err)
	}
	shared := map[string]*ebpf.Map{
		HostMapFlows0: meter.Flows0, HostMapFlows1: meter.Flows1, HostMapTotals0: meter.Totals0, HostMapTotals1: meter.Totals1,
		HostMapDisplaced0: meter.Displaced0, HostMapDisplaced1: meter.Displaced1, HostMapOutcomes: meter.Outcomes, HostMapWakeups: meter.Wakeups,
	}
	for name, m := range shared {
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
	var programs HostPrograms
	if err := spec.LoadAndAssign(&programs, &ebpf.CollectionOptions{MapReplacements: shared}); err != nil {
		tb.Fatalf("load programs: %+v", err)
	}
	tb.Cleanup(func() { programs.Close() })
	return &programs
}

// At a cgroup a packet is what it is at an interface, but for the point and the Ethernet
// header.
func TestHostSeesWhatTheMeterSees(t *testing.T) {
	t.Parallel()
	objects := loadMeter(t, loopback, hostPoint)
	programs := loadHost(t, objects)
	for _, c := range append(ipv4Cases(), ipv6Cases()...) {
		if c.outcome == MeterOutcomeOUTCOME_TRUNCATED_NETWORK {
			continue // IP hands over no such packet
		}
		t.Run(c.name, func(t *testing.T) {
			want := meter(t, objects, objects.PodmeterTransmit, c.packet)
			forget(t, objects)
			verdict, err := programs.PodmeterHostTransmit.Run(&ebpf.RunOptions{Data: c.packet})
			if err != nil {
				t.Fatalf("run program: %v", err)
			}
			if verdict != 1 {
				t.Errorf("verdict: got %d, want 1 to go on", verdict)
			}
			got := runs(t, objects)
			forget(t, objects)
			for i := range want {
				if want[i].flow.Packets > 0 {
					want[i].key.Point = hostPoint
					want[i].flow.Bytes -= 14 * want[i].flow.Packets
				}
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(run{})); diff != "" {
				t.Errorf("(-interface +cgroup):\n%s", diff)
			}
		})
	}
}

func TestHostDirections(t *testing.T) {
	t.Parallel()
	objects := loadMeter(t, hostPoint)
	programs := loadHost(t, objects)
	packet := ipv4Cases()[0].packet
	for direction, program := range []*ebpf.Program{programs.PodmeterHostTransmit, programs.PodmeterHostReceive} {
		for range direction + 2 {
			if _, err := program.Run(&ebpf.RunOptions{Data: packet}); err != nil {
				t.Fatal(err)
			}
		}
		key := MeterTotalKey{Point: hostPoint, Direction: uint32(direction)}
		if got := placeTotals(t, objects.Totals0, key).Packets; got != uint64(direction+2) {
			t.Errorf("direction %d: got %d packets, want %d", direction, got, direction+2)
		}
	}
}

// BenchmarkHostPacket measures what a packet takes at the cgroup of a pod in the node's
// network, above an empty program there, and beside what it takes at an interface.
func BenchmarkHostPacket(b *testing.B) {
	objects := loadMeter(b, loopback, hostPoint)
	programs := loadHost(b, objects)
	empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		b.Fatalf("load program: %+v", err)
	}
	b.Cleanup(func() { empty.Close() })
	const interfaces = "interface"
	all := []*contender{
		{name: nothing, program: empty, verdict: 1},
		{name: this, program: programs.PodmeterHostTransmit, verdict: 1},
		{name: interfaces, program: objects.PodmeterTransmit, verdict: unspec},
	}
	best := benchCases()[0].rounds(b, all, func() {})
	best.report(b)
	b.ReportMetric(best.ratio(this, interfaces), "ratio-to-interface")
}
