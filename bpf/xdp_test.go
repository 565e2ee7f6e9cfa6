// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
)

// pass is XDP_PASS.
const pass = 2

// meterXDP runs a frame through the XDP program and returns what the maps then hold.
func meterXDP(t *testing.T, objects *MeterObjects, frame []byte) []run {
	t.Helper()
	out := make([]byte, len(frame)+256)
	options := ebpf.RunOptions{Data: frame, DataOut: out}
	verdict, err := objects.PodmeterXdp.Run(&options)
	if err != nil {
		t.Fatalf("run program: %v", err)
	}
	if verdict != pass {
		t.Errorf("verdict: got %d, want XDP_PASS", verdict)
	}
	if !bytes.Equal(options.DataOut, frame) {
		t.Errorf("frame changed: got %x, want %x", options.DataOut, frame)
	}
	return runs(t, objects)
}

// What XDP makes of a frame is what TC makes of it where it is received.
func TestXDPReadsAsTC(t *testing.T) {
	t.Parallel()
	objects := loadMeter(t, loopback)
	for _, c := range append(append(ipv4Cases(), ipv6Cases()...), linkCases()...) {
		t.Run(c.name, func(t *testing.T) {
			defer forget(t, objects)
			tc := meter(t, objects, objects.PodmeterReceive, c.packet)
			forget(t, objects)
			c.key.Direction = 1
			want := []run{{outcome: c.outcome, key: c.key, flow: MeterFlowCounters{Bytes: uint64(len(c.packet)), Packets: 1}}}
			got := meterXDP(t, objects, c.packet)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(run{})); diff != "" {
				t.Errorf("flows (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc, got, cmp.AllowUnexported(run{})); diff != "" {
				t.Errorf("flows (-TC +XDP):\n%s", diff)
			}
		})
	}
}

// Every byte of a frame is counted, those in fragments of a large one included.
func TestXDPSizes(t *testing.T) {
	t.Parallel()
	objects := loadMeter(t, loopback)
	header := ktest.Packet(ktest.Ethernet(0x0800), ktest.IPv4(src4, dst4, udp), ktest.Ports(5, 6))
	for _, size := range []int{14, 15, 34, 60, 64, 1514, 3500, 4096, 9014, 16384} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			defer forget(t, objects)
			frame := append(bytes.Clone(header), make([]byte, max(0, size-len(header)))...)[:size]
			got := meterXDP(t, objects, frame)
			if len(got) != 1 || got[0].flow != (MeterFlowCounters{Bytes: uint64(size), Packets: 1}) {
				t.Errorf("got %+v, want one packet of %d bytes", got, size)
			}
		})
	}
}

// Ports behind more extension headers than the linear area holds are read from the
// fragments.
func TestXDPReadsFragments(t *testing.T) {
	t.Parallel()
	objects := loadMeter(t, loopback)
	frame := ktest.Packet(ktest.Ethernet(0x86dd), ktest.IPv6(src6, dst6, hopByHop),
		ktest.Extension(dstOp, 255), ktest.Extension(dstOp, 255), ktest.Extension(tcp, 255), ktest.Ports(80, 443))
	key := key6(tcp, 80, 443)
	key.Direction = 1
	want := []run{{outcome: MeterOutcomeOUTCOME_FULL, key: key, flow: MeterFlowCounters{Bytes: uint64(len(frame)), Packets: 1}}}
	if diff := cmp.Diff(want, meterXDP(t, objects, frame), cmp.AllowUnexported(run{})); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
	forget(t, objects)
	cut := frame[:len(frame)-17] // a byte of the ports is missing
	key.SourcePort, key.DestinationPort = 0, 0
	want = []run{{outcome: MeterOutcomeOUTCOME_TRUNCATED_TRANSPORT, key: key, flow: MeterFlowCounters{Bytes: uint64(len(cut)), Packets: 1}}}
	if diff := cmp.Diff(want, meterXDP(t, objects, cut), cmp.AllowUnexported(run{})); diff != "" {
		t.Errorf("cut (-want +got):\n%s", diff)
	}
}

// Random and mutated packets, odd in every way, are to XDP what they are to the
// reference that TC is compared with.
func TestXDPAgainstReference(t *testing.T) {
	t.Parallel()
	c := newComparison(t)
	received := func(packet []byte) []byte {
		packet = bytes.Clone(packet)
		packet[0] |= 1 // see direction
		return packet
	}
	c.seen = received
	c.deliver = func(packets [][]byte) {
		for _, packet := range packets {
			verdict, err := c.objects.PodmeterXdp.Run(&ebpf.RunOptions{Data: received(packet)})
			if err != nil || verdict != pass {
				t.Fatalf("run program with %x: got %d, %v, want XDP_PASS", packet, verdict, err)
			}
		}
	}
	c.runSequence(newDice(7, 0), effort.Choose(50_000, uint64(comparedPacketsShort)))
}
