// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
)

// mostVerified is how many instructions the kernel may look at to verify one of the programs
// of packets: it gives up at a million, and versions differ.
const mostVerified = 250_000

// verified calls visit with how many instructions the kernel looked at to verify each program
// of packets.
func verified(tb testing.TB, visit func(name string, instructions uint32)) {
	tb.Helper()
	objects := loadMeter(tb, loopback)
	host := loadHost(tb, objects)
	for name, program := range map[string]*ebpf.Program{
		MeterProgPodmeterTransmit: objects.PodmeterTransmit, MeterProgPodmeterReceive: objects.PodmeterReceive,
		MeterProgPodmeterL3Transmit: objects.PodmeterL3Transmit, MeterProgPodmeterL3Receive: objects.PodmeterL3Receive,
		MeterProgPodmeterXdp:         objects.PodmeterXdp,
		HostProgPodmeterHostTransmit: host.PodmeterHostTransmit, HostProgPodmeterHostReceive: host.PodmeterHostReceive,
	} {
		info, err := program.Info()
		if err != nil {
			tb.Fatalf("look at %s: %v", name, err)
		}
		instructions, known := info.VerifiedInstructions()
		if !known {
			tb.Skip("this kernel does not tell how many instructions it verified (Linux 5.16)")
		}
		visit(name, instructions)
	}
}

func TestVerifierHasRoom(t *testing.T) {
	t.Parallel()
	verified(t, func(name string, instructions uint32) {
		t.Logf("%s: %d instructions verified", name, instructions)
		if instructions > mostVerified {
			t.Errorf("%s: got %d instructions verified, want at most %d", name, instructions, mostVerified)
		}
	})
}

func BenchmarkVerifier(b *testing.B) {
	for b.Loop() {
		verified(b, func(name string, instructions uint32) { b.ReportMetric(float64(instructions), name+"-instructions") })
	}
	b.ReportMetric(0, "ns/op")
}
