// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

const (
	loopback = 1 // the ifindex of a packet in BPF_PROG_TEST_RUN
	unspec   = 0xffffffff

	tcp, udp, sctp, icmp, icmpv6           = 6, 17, 132, 1, 58
	hopByHop, routing, fragment, ah, dstOp = 0, 43, 44, 51, 60
	gre, noNext                            = 47, 59
)

var (
	src4, dst4 = netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.2")
	src6, dst6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// loadMeter loads a fresh collection whose totals know the point ifindex 1.
func loadMeter(t testing.TB, points ...uint32) *MeterObjects {
	t.Helper()
	ktest.Privileged(t)
	spec, err := LoadMeter()
	if err != nil {
		t.Fatalf("read object: %v", err)
	}
	sizeFronts(t, spec, testBuckets)
	var objects MeterObjects
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		t.Fatalf("load objects: %+v", err)
	}
	t.Cleanup(func() { objects.Close() })
	for _, point := range points {
		for _, direction := range []uint32{0, 1} {
			for _, totals := range []*ebpf.Map{objects.Totals0, objects.Totals1} {
				createPlace(t, totals, MeterTotalKey{Point: point, Direction: direction})
			}
		}
	}
	return &objects
}

// createPlace gives a point and direction its place, with zeroed counters.
func createPlace(t testing.TB, totals *ebpf.Map, key MeterTotalKey) {
	t.Helper()
	slots := make([]MeterTotalPlace, ebpf.MustPossibleCPU())
	for i := range slots {
		slots[i].Owner = key
	}
	if err := totals.Put(key.Place(), slots); err != nil {
		t.Fatalf("create totals: %v", err)
	}
}

// createDisplaced gives a point and direction totals beside the places. With many possible
// CPUs the kernel's reserve for them can be empty for some milliseconds.
func createDisplaced(t testing.TB, displaced *ebpf.Map, key MeterTotalKey) {
	t.Helper()
	ktest.Await(t, "displaced totals", func() bool {
		err := displaced.Put(key, make([]MeterTotalCounters, ebpf.MustPossibleCPU()))
		if err != nil && !errors.Is(err, unix.ENOMEM) {
			t.Fatalf("create displaced totals: %v", err)
		}
		return err == nil
	})
}

// placeTotals sums a place over all CPUs.
func placeTotals(t testing.TB, totals *ebpf.Map, key MeterTotalKey) MeterTotalCounters {
	t.Helper()
	var slots []MeterTotalPlace
	if err := totals.Lookup(key.Place(), &slots); err != nil {
		t.Fatalf("look up totals: %v", err)
	}
	var sum MeterTotalCounters
	for _, s := range slots {
		sum.Bytes, sum.Packets = sum.Bytes+s.Counters.Bytes, sum.Packets+s.Counters.Packets
		sum.Inserted += s.Counters.Inserted
	}
	return sum
}

// displacedTotals sums displaced totals over all CPUs, if there are any.
func displacedTotals(t testing.TB, displaced *ebpf.Map, key MeterTotalKey) (sum MeterTotalCounters) {
	t.Helper()
	var slots []MeterTotalCounters
	if err := displaced.Lookup(key, &slots); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Fatalf("look up displaced totals: %v", err)
	}
	for _, s := range slots {
		sum.Packets, sum.Inserted = sum.Packets+s.Packets, sum.Inserted+s.Inserted
	}
	return sum
}

type run struct {
	outcome MeterOutcome
	key     MeterFlowKey
	flow    MeterFlowCounters
}

// meter runs a packet through a program and returns what the maps then hold.
func meter(t *testing.T, objects *MeterObjects, program *ebpf.Program, packet []byte) []run {
	t.Helper()
	out := make([]byte, len(packet)+256)
	options := ebpf.RunOptions{Data: packet, DataOut: out}
	verdict, err := program.Run(&options)
	if err != nil {
		t.Fatalf("run program: %v", err)
	}
	if verdict != unspec {
		t.Errorf("verdict: got %d, want TC_ACT_UNSPEC", int32(verdict))
	}
	if !bytes.Equal(options.DataOut, packet) {
		t.Errorf("packet changed: got %x, want %x", options.DataOut, packet)
	}
	return runs(t, objects)
}

func runs(t *testing.T, objects *MeterObjects) []run {
	t.Helper()
	var found []run
	for key, sum := range flowsIn(t, objects.Front0, objects.Flows0, 0) {
		found = append(found, run{key: key, flow: sum})
	}
	for outcome := range MeterOutcomeOUTCOMES {
		var packets []uint64
		if err := objects.Outcomes.Lookup(outcome, &packets); err != nil {
			t.Fatalf("look up outcome %d: %v", outcome, err)
		}
		for _, n := range packets {
			if n > 0 && len(found) > 0 {
				found[0].outcome = outcome
			} else if n > 0 {
				found = append(found, run{outcome: outcome})
			}
		}
	}
	return found
}

// forget empties what runs looks at, so that the next packet finds nothing.
func forget(t *testing.T, objects *MeterObjects) {
	t.Helper()
	empty(t, objects)
	for outcome := range MeterOutcomeOUTCOMES {
		if err := objects.Outcomes.Put(outcome, make([]uint64, ebpf.MustPossibleCPU())); err != nil {
			t.Fatalf("zero outcome: %v", err)
		}
	}
}

func swap16(v uint16) uint16 { return v<<8 | v>>8 }

// key4 is the key of an IPv4 packet; ports in host order.
func key4(protocol uint8, source, destination uint16) MeterFlowKey {
	return MeterFlowKey{Source: src4.As16(), Destination: dst4.As16(), Point: loopback, Protocol: protocol,
		SourcePort: swap16(source), DestinationPort: swap16(destination), Ethertype: swap16(0x0800)}
}

func key6(protocol uint8, source, destination uint16) MeterFlowKey {
	key := key4(protocol, source, destination)
	key.Source, key.Destination, key.Ethertype = src6.As16(), dst6.As16(), swap16(0x86dd)
	return key
}

func keyLink(ethertype uint16) MeterFlowKey {
	return MeterFlowKey{Point: loopback, Ethertype: swap16(ethertype)}
}

type parseCase struct {
	name    string
	packet  []byte
	outcome MeterOutcome
	key     MeterFlowKey
}

func ipv4Cases() []parseCase {
	eth := ktest.Ethernet(0x0800)
	ip := func(protocol uint8, options ...byte) []byte { return ktest.IPv4(src4, dst4, protocol, options...) }
	bad := func(first byte) []byte { h := ip(tcp); h[0] = first; return h }
	return []parseCase{
		{"tcp", ktest.Packet(eth, ip(tcp), ktest.Ports(80, 443)), MeterOutcomeOUTCOME_FULL, key4(tcp, 80, 443)},
		{"udp", ktest.Packet(eth, ip(udp), ktest.Ports(53, 1024)), MeterOutcomeOUTCOME_FULL, key4(udp, 53, 1024)},
		{"sctp", ktest.Packet(eth, ip(sctp), ktest.Ports(9, 65535)), MeterOutcomeOUTCOME_FULL, key4(sctp, 9, 65535)},
		{"icmp", ktest.Packet(eth, ip(icmp), ktest.ICMP(3, 1)), MeterOutcomeOUTCOME_FULL, key4(icmp, 0, 3<<8|1)},
		{"gre", ktest.Packet(eth, ip(gre), ktest.Ports(1, 2)), MeterOutcomeOUTCOME_NO_PORTS, key4(gre, 0, 0)},
		{"options", ktest.Packet(eth, ip(tcp, 7, 4, 0, 0), ktest.Ports(80, 443)), MeterOutcomeOUTCOME_FULL, key4(tcp, 80, 443)},
		{"most options", ktest.Packet(eth, ip(udp, make([]byte, 40)...), ktest.Ports(5, 6)), MeterOutcomeOUTCOME_FULL, key4(udp, 5, 6)},
		{"first fragment", ktest.Packet(eth, ktest.Fragment(ip(udp), 0), ktest.Ports(5, 6)), MeterOutcomeOUTCOME_FULL, key4(udp, 5, 6)},
		{"later fragment", ktest.Packet(eth, ktest.Fragment(ip(udp), 185), ktest.Ports(5, 6)), MeterOutcomeOUTCOME_LATER_FRAGMENT, key4(udp, 0, 0)},
		// Tagged, as program run refuses a packet that the kernel itself would find too short.
		{"ends within header", ktest.Packet(ktest.Ethernet(0x8100), ktest.VLAN(7, 0x0800), ip(tcp)[:19]), MeterOutcomeOUTCOME_TRUNCATED_NETWORK, keyLink(0x0800)},
		{"ends within options", ktest.Packet(eth, ip(tcp, make([]byte, 8)...)[:24]), MeterOutcomeOUTCOME_TRUNCATED_TRANSPORT, key4(tcp, 0, 0)},
		{"ends within ports", ktest.Packet(eth, ip(tcp), []byte{0, 80, 1}), MeterOutcomeOUTCOME_TRUNCATED_TRANSPORT, key4(tcp, 0, 0)},
		{"ends after ports", ktest.Packet(eth, ip(tcp), []byte{0, 80, 1, 187}), MeterOutcomeOUTCOME_FULL, key4(tcp, 80, 443)},
		{"ends within icmp", ktest.Packet(eth, ip(icmp), []byte{3}), MeterOutcomeOUTCOME_TRUNCATED_TRANSPORT, key4(icmp, 0, 0)},
		{"header length 4", ktest.Packet(eth, bad(0x44), ktest.Ports(1, 2)), MeterOutcomeOUTCOME_MALFORMED, keyLink(0x0800)},
		{"version 6", ktest.Packet(eth, bad(0x65), ktest.Ports(1, 2)), MeterOutcomeOUTCOME_MALFORMED, keyLink(0x0800)},
	}
}

func ipv6Cases() []parseCase {
	eth := ktest.Ethernet(0x86dd)
	ip := func(next uint8) []byte { return ktest.IPv6(src6, dst6, next) }
	ports := ktest.Ports(80, 443)
	chain := func(n int, last uint8) []byte {
		packet := ktest.Packet(eth, ip(dstOp))
		for i := range n {
			next := uint8(dstOp)
			if i == n-1 {
				next = last
			}
			packet = append(packet, ktest.Extension(next, 0)...)
		}
		return append(packet, ports...)
	}
	bad := ip(tcp)
	bad[0] = 0x45
	return []parseCase{
		{"tcp6", ktest.Packet(eth, ip(tcp), ports), MeterOutcomeOUTCOME_FULL, key6(tcp, 80, 443)},
		{"udp6", ktest.Packet(eth, ip(udp), ports), MeterOutcomeOUTCOME_FULL, key6(udp, 80, 443)},
		{"sctp6", ktest.Packet(eth, ip(sctp), ports), MeterOutcomeOUTCOME_FULL, key6(sctp, 80, 443)},
		{"icmpv6", ktest.Packet(eth, ip(icmpv6), ktest.ICMP(128, 0)), MeterOutcomeOUTCOME_FULL, key6(icmpv6, 0, 128<<8)},
		{"no next header", ktest.Packet(eth, ip(noNext), ports), MeterOutcomeOUTCOME_NO_PORTS, key6(noNext, 0, 0)},
		{"hop-by-hop", ktest.Packet(eth, ip(hopByHop), ktest.Extension(tcp, 0), ports), MeterOutcomeOUTCOME_FULL, key6(tcp, 80, 443)},
		{"long hop-by-hop", ktest.Packet(eth, ip(hopByHop), ktest.Extension(tcp, 255), ports), MeterOutcomeOUTCOME_FULL, key6(tcp, 80, 443)},
		{"routing", ktest.Packet(eth, ip(routing), ktest.Extension(udp, 2), ports), MeterOutcomeOUTCOME_FULL, key6(udp, 80, 443)},
		{"destination options", ktest.Packet(eth, ip(dstOp), ktest.Extension(tcp, 1), ports), MeterOutcomeOUTCOME_FULL, key6(tcp, 80, 443)},
		{"authentication", ktest.Packet(eth, ip(ah), ktest.Authentication(tcp, 4), ports), MeterOutcomeOUTCOME_FULL, key6(tcp, 80, 443)},
		{"first fragment6", ktest.Packet(eth, ip(fragment), ktest.IPv6Fragment(udp, 0), ports), MeterOutcomeOUTCOME_FULL, key6(udp, 80, 443)},
		{"later fragment6", ktest.Packet(eth, ip(fragment), ktest.IPv6Fragment(udp, 181), ports), MeterOutcomeOUTCOME_LATER_FRAGMENT, key6(udp, 0, 0)},
		{"all of them", ktest.Packet(eth, ip(hopByHop), ktest.Extension(routing, 0), ktest.Extension(fragment, 1),
			ktest.IPv6Fragment(ah, 0), ktest.Authentication(dstOp, 2), ktest.Extension(tcp, 0), ports), MeterOutcomeOUTCOME_FULL, key6(tcp, 80, 443)},
		{"eight extensions", chain(8, tcp), MeterOutcomeOUTCOME_FULL, key6(tcp, 80, 443)},
		{"nine extensions", chain(9, tcp), MeterOutcomeOUTCOME_EXTENSION_LIMIT, key6(dstOp, 0, 0)},
		{"ends within header6", ktest.Packet(ktest.Ethernet(0x8100), ktest.VLAN(7, 0x86dd), ip(tcp)[:39]), MeterOutcomeOUTCOME_TRUNCATED_NETWORK, keyLink(0x86dd)},
		{"ends within extension", ktest.Packet(eth, ip(dstOp), []byte{6, 0, 0}), MeterOutcomeOUTCOME_TRUNCATED_EXTENSION, key6(dstOp, 0, 0)},
		{"ends within ports6", ktest.Packet(eth, ip(tcp), []byte{0, 80, 1}), MeterOutcomeOUTCOME_TRUNCATED_TRANSPORT, key6(tcp, 0, 0)},
		{"version 4", ktest.Packet(eth, bad, ports), MeterOutcomeOUTCOME_MALFORMED, keyLink(0x86dd)},
	}
}

func linkCases() []parseCase {
	ip, ports := ktest.IPv4(src4, dst4, tcp), ktest.Ports(80, 443)
	return []parseCase{
		{"arp", ktest.Packet(ktest.Ethernet(0x0806), make([]byte, 28)), MeterOutcomeOUTCOME_NOT_IP, keyLink(0x0806)},
		{"header alone", ktest.Ethernet(0x88cc), MeterOutcomeOUTCOME_NOT_IP, keyLink(0x88cc)},
		{"802.1Q", ktest.Packet(ktest.Ethernet(0x8100), ktest.VLAN(7, 0x0800), ip, ports), MeterOutcomeOUTCOME_FULL, key4(tcp, 80, 443)},
		{"QinQ", ktest.Packet(ktest.Ethernet(0x88a8), ktest.VLAN(7, 0x8100), ktest.VLAN(8, 0x0800), ip, ports), MeterOutcomeOUTCOME_FULL, key4(tcp, 80, 443)},
		{"three tags", ktest.Packet(ktest.Ethernet(0x88a8), ktest.VLAN(7, 0x8100), ktest.VLAN(8, 0x8100), ktest.VLAN(9, 0x0800), ip, ports),
			MeterOutcomeOUTCOME_FULL, key4(tcp, 80, 443)},
		{"four tags", ktest.Packet(ktest.Ethernet(0x88a8), ktest.VLAN(7, 0x8100), ktest.VLAN(8, 0x8100), ktest.VLAN(9, 0x88a8), ktest.VLAN(1, 0x0800), ip, ports),
			MeterOutcomeOUTCOME_VLAN_LIMIT, keyLink(0x88a8)},
		{"tagged arp", ktest.Packet(ktest.Ethernet(0x8100), ktest.VLAN(7, 0x0806), make([]byte, 28)), MeterOutcomeOUTCOME_NOT_IP, keyLink(0x0806)},
		{"ends within tag", ktest.Packet(ktest.Ethernet(0x8100), []byte{0, 7, 8}), MeterOutcomeOUTCOME_TRUNCATED_VLAN, keyLink(0x8100)},
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	objects := loadMeter(t, loopback)
	for _, c := range append(append(ipv4Cases(), ipv6Cases()...), linkCases()...) {
		for _, direction := range []uint32{0, 1} {
			t.Run(c.name+"/"+[]string{"transmit", "receive"}[direction], func(t *testing.T) {
				defer forget(t, objects)
				program := []*ebpf.Program{objects.PodmeterTransmit, objects.PodmeterReceive}[direction]
				c.key.Direction = uint8(direction)
				want := []run{{outcome: c.outcome, key: c.key,
					flow: MeterFlowCounters{Bytes: uint64(len(c.packet)), Packets: 1}}}
				got := meter(t, objects, program, c.packet)
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(run{})); diff != "" {
					t.Errorf("flows (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestNoPointCountsNothingElse(t *testing.T) {
	t.Parallel()
	objects := loadMeter(t)
	packet := ktest.Packet(ktest.Ethernet(0x0800), ktest.IPv4(src4, dst4, tcp), ktest.Ports(1, 2))
	want := []run{{outcome: MeterOutcomeOUTCOME_NO_POINT}}
	got := meter(t, objects, objects.PodmeterTransmit, packet)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(run{})); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
}

// Where another point owns the place, the totals are in the hash or nowhere.
func TestPlaceOfAnother(t *testing.T) {
	t.Parallel()
	packet := ktest.Packet(ktest.Ethernet(0x0800), ktest.IPv4(src4, dst4, tcp), ktest.Ports(1, 2))
	key, other := MeterTotalKey{Point: loopback}, MeterTotalKey{Point: loopback + totalPlaces/2}
	for _, displaced := range []bool{false, true} {
		t.Run(fmt.Sprintf("displaced %v", displaced), func(t *testing.T) {
			t.Parallel()
			objects := loadMeter(t, other.Point)
			want := run{outcome: MeterOutcomeOUTCOME_NO_POINT}
			if displaced {
				want = run{key: key4(tcp, 1, 2), flow: MeterFlowCounters{Bytes: uint64(len(packet)), Packets: 1}}
				createDisplaced(t, objects.Displaced0, key)
			}
			got := meter(t, objects, objects.PodmeterTransmit, packet)
			if diff := cmp.Diff([]run{want}, got, cmp.AllowUnexported(run{})); diff != "" {
				t.Errorf("flows (-want +got):\n%s", diff)
			}
			if got := placeTotals(t, objects.Totals0, other); got != (MeterTotalCounters{}) {
				t.Errorf("totals of the place's owner: got %+v, want none", got)
			}
			if got := displacedTotals(t, objects.Displaced0, key).Packets; got != want.flow.Packets {
				t.Errorf("displaced totals: got %d packets, want %d", got, want.flow.Packets)
			}
		})
	}
}

func TestPlaces(t *testing.T) {
	specs := loadSpec(t)
	if got := specs.Totals0.MaxEntries; got != totalPlaces {
		t.Errorf("got %d places in the object, want %d", got, totalPlaces)
	}
}

// The epoch's lowest bit chooses the set, and nothing of the run goes elsewhere.
func TestEpochChoosesTheSet(t *testing.T) {
	t.Parallel()
	objects := loadMeter(t, loopback)
	if err := objects.Epoch.Set(MeterEpochState{Epoch: 7}); err != nil {
		t.Fatalf("set epoch: %v", err)
	}
	packet := ktest.Packet(ktest.Ethernet(0x0800), ktest.IPv4(src4, dst4, tcp), ktest.Ports(1, 2))
	meter(t, objects, objects.PodmeterTransmit, packet)
	for set, maps := range [][3]*ebpf.Map{
		{objects.Front0, objects.Flows0, objects.Totals0}, {objects.Front1, objects.Flows1, objects.Totals1},
	} {
		got := placeTotals(t, maps[2], MeterTotalKey{Point: loopback})
		want := MeterTotalCounters{}
		if set == 1 {
			want = MeterTotalCounters{Bytes: uint64(len(packet)), Packets: 1, Inserted: 1}
		}
		if got != want {
			t.Errorf("totals of set %d: got %+v, want %+v", set, got, want)
		}
		if got := len(flowsIn(t, maps[0], maps[1], 7)); got != set {
			t.Errorf("set %d: got %d flows, want %d", set, got, set)
		}
	}
}
