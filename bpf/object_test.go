// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"slices"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

func loadSpec(t *testing.T) *MeterSpecs {
	t.Helper()
	var specs MeterSpecs
	spec, err := LoadMeter()
	if err != nil {
		t.Fatalf("load meter: %v", err)
	}
	if err := spec.Assign(&specs); err != nil {
		t.Fatalf("assign specs: %v", err)
	}
	return &specs
}

// The run belongs to the set that its one read of the epoch chose: a second
// read could choose another.
func TestEpochIsReadOnce(t *testing.T) {
	specs, host := loadSpec(t), loadHostSpec(t)
	var sockets SocketProgramSpecs
	spec, err := LoadSocket()
	if err != nil {
		t.Fatalf("load sockets: %v", err)
	}
	if err := spec.Assign(&sockets); err != nil {
		t.Fatalf("assign specs: %v", err)
	}
	for _, program := range []struct {
		name         string
		instructions asm.Instructions
	}{
		{"transmit", specs.PodmeterTransmit.Instructions},
		{"receive", specs.PodmeterReceive.Instructions},
		{"transmit without an Ethernet header", specs.PodmeterL3Transmit.Instructions},
		{"receive without an Ethernet header", specs.PodmeterL3Receive.Instructions},
		{"xdp", specs.PodmeterXdp.Instructions},
		{"host transmit", host.PodmeterHostTransmit.Instructions},
		{"host receive", host.PodmeterHostReceive.Instructions},
		{"tcp", sockets.PodmeterTcp.Instructions},
	} {
		t.Run(program.name, func(t *testing.T) {
			loads := 0
			for _, ins := range program.instructions {
				if ins.IsLoadFromMap() && ins.Reference() == ".data.epoch" {
					loads++
				}
			}
			if loads != 1 {
				t.Errorf("got %d loads of the epoch, want 1", loads)
			}
		})
	}
}

func loadHostSpec(t *testing.T) (specs HostProgramSpecs) {
	t.Helper()
	spec, err := LoadHost()
	if err != nil {
		t.Fatalf("load host: %v", err)
	}
	if err := spec.Assign(&specs); err != nil {
		t.Fatalf("assign specs: %v", err)
	}
	return specs
}

// No program has a helper that reads any address: kernel lockdown takes them away, and a program
// that asks for one is refused.
func TestNoProgramReadsAnyAddress(t *testing.T) {
	forbidden := []asm.BuiltinFunc{asm.FnProbeRead, asm.FnProbeReadStr, asm.FnProbeReadKernel, asm.FnProbeReadKernelStr}
	for object, load := range map[string]func() (*ebpf.CollectionSpec, error){"meter": LoadMeter, "host": LoadHost, "socket": LoadSocket} {
		spec, err := load()
		if err != nil {
			t.Fatalf("load %s: %v", object, err)
		}
		for name, program := range spec.Programs {
			for _, ins := range program.Instructions {
				if ins.IsBuiltinCall() && slices.Contains(forbidden, asm.BuiltinFunc(ins.Constant)) {
					t.Errorf("%s: %s: got a call of %v, want none", object, name, asm.BuiltinFunc(ins.Constant))
				}
			}
		}
	}
}

// Programs of cgroups can be interrupted by each other: what they add to is added to in
// one step, or two of them could lose a packet. That happens too rarely to be provoked.
func TestHostProgramsAddInOneStep(t *testing.T) {
	specs := loadHostSpec(t)
	for name, program := range map[string]*ebpf.ProgramSpec{"transmit": specs.PodmeterHostTransmit, "receive": specs.PodmeterHostReceive} {
		t.Run(name, func(t *testing.T) {
			atomic := 0
			for _, ins := range program.Instructions {
				if op := ins.OpCode.AtomicOp(); op == asm.AddAtomic || op == asm.FetchAdd {
					atomic++
				}
			}
			// For each set the point's totals, a flow's counters, insertions into both;
			// what is unplaced, in code that the sets share; the outcome.
			if want := 2*(2+2+2) + 2 + 1; atomic != want {
				t.Errorf("got %d atomic additions, want %d", atomic, want)
			}
		})
	}
}

// Each member's offset in the object's BTF equals that in the Go structure, and
// no byte of either is padding.
func TestLayouts(t *testing.T) {
	spec, err := LoadMeter()
	if err != nil {
		t.Fatalf("load meter: %v", err)
	}
	var (
		key   MeterFlowKey
		flow  MeterFlowCounters
		slot  MeterFrontSlot
		point MeterTotalKey
		total MeterTotalCounters
		place MeterTotalPlace
		epoch MeterEpochState

		more      MeterMoreCounters
		morePlace MeterMorePlace
	)
	checkLayouts(t, spec.Types, []layout{
		{"flow_key", unsafe.Sizeof(key), []uintptr{
			unsafe.Offsetof(key.Source), unsafe.Offsetof(key.Destination), unsafe.Offsetof(key.Point),
			unsafe.Offsetof(key.SourcePort), unsafe.Offsetof(key.DestinationPort),
			unsafe.Offsetof(key.Ethertype), unsafe.Offsetof(key.Protocol), unsafe.Offsetof(key.Direction)}},
		{"flow_counters", unsafe.Sizeof(flow), []uintptr{
			unsafe.Offsetof(flow.Bytes), unsafe.Offsetof(flow.Packets),
			unsafe.Offsetof(flow.MoreBytes), unsafe.Offsetof(flow.MorePackets),
			unsafe.Offsetof(flow.First), unsafe.Offsetof(flow.Last)}},
		{"front_slot", unsafe.Sizeof(slot), []uintptr{
			unsafe.Offsetof(slot.Key), unsafe.Offsetof(slot.Tag), unsafe.Offsetof(slot.Counters)}},
		{"total_key", unsafe.Sizeof(point), []uintptr{
			unsafe.Offsetof(point.Point), unsafe.Offsetof(point.Direction)}},
		{"total_counters", unsafe.Sizeof(total), []uintptr{
			unsafe.Offsetof(total.Bytes), unsafe.Offsetof(total.Packets), unsafe.Offsetof(total.Inserted),
			unsafe.Offsetof(total.UnplacedBytes), unsafe.Offsetof(total.UnplacedPackets)}},
		{"total_place", unsafe.Sizeof(place), []uintptr{
			unsafe.Offsetof(place.Counters), unsafe.Offsetof(place.Owner)}},
		{"more_counters", unsafe.Sizeof(more), []uintptr{unsafe.Offsetof(more.Bytes), unsafe.Offsetof(more.Packets)}},
		{"more_place", unsafe.Sizeof(morePlace), []uintptr{unsafe.Offsetof(morePlace.Counters), unsafe.Offsetof(morePlace.Owner)}},
		{"epoch_state", unsafe.Sizeof(epoch), []uintptr{
			unsafe.Offsetof(epoch.Epoch), unsafe.Offsetof(epoch.SetId)}},
	})
}

func TestLayoutsOfSockets(t *testing.T) {
	spec, err := LoadSocket()
	if err != nil {
		t.Fatalf("load sockets: %v", err)
	}
	var (
		key    SocketSocketKey
		owner  SocketSocketOwner
		owners SocketSocketOwners
		share  SocketShare
		end    SocketHealthKey
		health SocketTcpHealth
	)
	checkLayouts(t, spec.Types, []layout{
		{"socket_key", unsafe.Sizeof(key), []uintptr{
			unsafe.Offsetof(key.Netns), unsafe.Offsetof(key.Local), unsafe.Offsetof(key.Peer),
			unsafe.Offsetof(key.LocalPort), unsafe.Offsetof(key.PeerPort), unsafe.Offsetof(key.Protocol), unsafe.Offsetof(key.Pad)}},
		{"socket_owner", unsafe.Sizeof(owner), []uintptr{
			unsafe.Offsetof(owner.Cgroup), unsafe.Offsetof(owner.Process), unsafe.Offsetof(owner.Since),
			unsafe.Offsetof(owner.Until), unsafe.Offsetof(owner.Command), unsafe.Offsetof(owner.Share),
			unsafe.Offsetof(owner.Role), unsafe.Offsetof(owner.Kept)}},
		{"share", unsafe.Sizeof(share), []uintptr{unsafe.Offsetof(share.Made), unsafe.Offsetof(share.Gone)}},
		{"socket_owners", unsafe.Sizeof(owners), []uintptr{
			unsafe.Offsetof(owners.Lock), unsafe.Offsetof(owners.Open), unsafe.Offsetof(owners.Shared),
			unsafe.Offsetof(owners.Owners), unsafe.Offsetof(owners.Now), unsafe.Offsetof(owners.Before)}},
		{"health_key", unsafe.Sizeof(end), []uintptr{unsafe.Offsetof(end.Socket), unsafe.Offsetof(end.Cgroup)}},
		{"tcp_health", unsafe.Sizeof(health), []uintptr{
			unsafe.Offsetof(health.RttSum), unsafe.Offsetof(health.Bytes), unsafe.Offsetof(health.Segments),
			unsafe.Offsetof(health.Opened), unsafe.Offsetof(health.Failed),
			unsafe.Offsetof(health.ResetsSent), unsafe.Offsetof(health.ResetsReceived), unsafe.Offsetof(health.SynRetransmits),
			unsafe.Offsetof(health.ZeroWindows), unsafe.Offsetof(health.OutOfOrder), unsafe.Offsetof(health.Events),
			unsafe.Offsetof(health.First), unsafe.Offsetof(health.Last), unsafe.Offsetof(health.Rtt), unsafe.Offsetof(health.Pad)}},
	})
}

// layout is a structure as Go has it.
type layout struct {
	name    string
	size    uintptr
	offsets []uintptr
}

func checkLayouts(t *testing.T, types *btf.Spec, layouts []layout) {
	t.Helper()
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			var typ *btf.Struct
			if err := types.TypeByName(layout.name, &typ); err != nil {
				t.Fatalf("find type: %v", err)
			}
			checkLayout(t, typ, layout.size, layout.offsets)
		})
	}
}

func checkLayout(t *testing.T, typ *btf.Struct, size uintptr, offsets []uintptr) {
	t.Helper()
	if uintptr(typ.Size) != size {
		t.Errorf("size: got %d, want %d", typ.Size, size)
	}
	if len(typ.Members) != len(offsets) {
		t.Fatalf("members: got %d, want %d", len(typ.Members), len(offsets))
	}
	end := uint32(0)
	for i, member := range typ.Members {
		if got := member.Offset.Bytes(); uintptr(got) != offsets[i] || got != end {
			t.Errorf("%s: got offset %d, want %d, previous member ends at %d", member.Name, got, offsets[i], end)
		}
		size, err := btf.Sizeof(member.Type)
		if err != nil {
			t.Fatalf("size of %s: %v", member.Name, err)
		}
		end = member.Offset.Bytes() + uint32(size)
	}
	if end != typ.Size {
		t.Errorf("last member ends at %d, want %d", end, typ.Size)
	}
}

func TestFlowKeySize(t *testing.T) {
	if got := unsafe.Sizeof(MeterFlowKey{}); got != 44 {
		t.Errorf("got %d bytes, want 44: an entry's memory was measured with that", got)
	}
}
