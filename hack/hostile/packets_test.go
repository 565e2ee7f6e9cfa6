// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

// packetAttacks are those by what pods with CAP_NET_RAW send.
func packetAttacks() []attack {
	return []attack{
		{name: "a scan of ports and addresses, each packet a flow", missed: 0.75, run: scan, check: moreThan("podmeter_pod_transmit_packets_total", 10_000)},
		{name: "spoofed sources, the victim's among them, by packets, ARP and IPv6", run: spoof,
			check: moreThan("podmeter_pod_foreign_source_bytes_total", 100_000)},
		{name: "frames cut within their headers, lengths that lie, fragments, random bytes", run: oddFrames,
			check: moreThan("podmeter_pod_transmit_packets_total", 1000)},
	}
}

// moreThan wants a counter of the hostile pods to have grown.
func moreThan(name string, least float64) func(*testing.T, *world, samples, samples) {
	return func(t *testing.T, _ *world, before, after samples) {
		t.Helper()
		if got := grown(before, after, name) - grown(before, after, name, "pod", victimName); got < least {
			t.Errorf("%s: got %v more, want at least %v", name, got, least)
		}
	}
}

// flood sends frames, which change each time, as fast as one thread can.
func flood(ctx context.Context, t *testing.T, from *ktest.Pod, frames [][]byte, change func(frame []byte, n uint64)) {
	injector := from.NewInjector(t, "eth0", false)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for n := uint64(0); ctx.Err() == nil; {
		for _, frame := range frames {
			n++
			change(frame, n)
		}
		if _, err := injector.Send(frames...); err != nil {
			t.Error(err)
			return
		}
	}
}

func scan(ctx context.Context, t *testing.T, w *world) {
	flood(ctx, t, w.hostile[0], ktest.ScanFrames(), ktest.SetFlow)
}

// spoof sends from addresses of others to the node.
func spoof(ctx context.Context, t *testing.T, w *world) {
	victim, node := netip.MustParseAddr(w.victim.IP), netip.MustParseAddr(w.victim.Gateway)
	arp := append([]byte{0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1}, victim.AsSlice()...) // RFC 826: is at
	arp = append(append(arp, 0, 0, 0, 0, 0, 0), node.AsSlice()...)
	first, second := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	ipv4 := ktest.Packet(ktest.Ethernet(unix.ETH_P_IP), ktest.IPv4(victim, node, unix.IPPROTO_UDP), ktest.Ports(7, 7))
	frames := [][]byte{
		ipv4, append([]byte(nil), ipv4...),
		ktest.Packet(ktest.Ethernet(unix.ETH_P_ARP), arp),
		ktest.Packet(ktest.Ethernet(unix.ETH_P_IPV6), ktest.IPv6(first, second, unix.IPPROTO_UDP), ktest.Ports(7, 7)),
	}
	const source = 14 + 12
	flood(ctx, t, w.hostile[1], frames, func(frame []byte, n uint64) {
		if n%4 == 2 { // the second: from anywhere
			binary.BigEndian.PutUint32(frame[source:], uint32(n*0x9e3779b9))
		}
	})
}

// oddFrames sends what no stack would, some thousand frames a second.
func oddFrames(ctx context.Context, t *testing.T, w *world) {
	injector := w.hostile[2].NewInjector(t, "eth0", false)
	random := rand.New(rand.NewPCG(1, 2))
	for ctx.Err() == nil {
		for _, frame := range append(cutFrames(), randomFrame(random)) {
			if _, err := injector.Send(frame); err != nil {
				t.Error(err)
				return
			}
		}
	}
}

// cutFrames are frames of each kind, cut at each length from the end of the Ethernet header.
func cutFrames() (frames [][]byte) {
	source, destination := netip.MustParseAddr("10.1.3.2"), netip.MustParseAddr("10.1.3.1")
	lying := ktest.IPv4(source, destination, unix.IPPROTO_TCP)
	lying[0] = 4<<4 | 15 // options beyond its end
	binary.BigEndian.PutUint16(lying[2:], 65535)
	short := ktest.IPv4(source, destination, unix.IPPROTO_UDP)
	short[0] = 4 << 4 // a header of no bytes
	first, second := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	whole := [][]byte{
		ktest.Packet(ktest.Ethernet(unix.ETH_P_8021Q), ktest.VLAN(5, unix.ETH_P_IP), short, ktest.Ports(1, 2)),
		ktest.Packet(ktest.Ethernet(unix.ETH_P_8021AD), ktest.VLAN(5, unix.ETH_P_8021Q), ktest.VLAN(6, unix.ETH_P_IP), lying),
		ktest.Packet(ktest.Ethernet(unix.ETH_P_IP), ktest.Fragment(ktest.IPv4(source, destination, unix.IPPROTO_UDP), 8191), ktest.Ports(1, 2)),
		ktest.Packet(ktest.Ethernet(unix.ETH_P_IP), lying),
		ktest.Packet(ktest.Ethernet(unix.ETH_P_IPV6), ktest.IPv6(first, second, 0), ktest.Extension(0, 1), ktest.Extension(60, 0),
			ktest.IPv6Fragment(unix.IPPROTO_TCP, 100), ktest.Ports(1, 2)),
	}
	const ethernet = 14
	for _, frame := range whole {
		for length := ethernet; length <= len(frame); length++ {
			frames = append(frames, frame[:length])
		}
	}
	return frames
}

// randomFrame has an Ethernet header of IPv4 and random bytes.
func randomFrame(random *rand.Rand) []byte {
	frame := ktest.Packet(ktest.Ethernet(unix.ETH_P_IP), make([]byte, random.IntN(1400)))
	for i := 14; i < len(frame); i++ {
		frame[i] = byte(random.Uint32())
	}
	return frame
}
