// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	deviceMTU          = 9000
	devicePackets      = 20_000
	devicePacketsShort = 4_000

	// A ring of frames, each of which holds a packet of deviceMTU.
	ringFrames, frameSize = 64, 16384
	// frameData is where the packet begins in a frame to be sent, behind struct
	// tpacket2_hdr.
	frameData          = 32
	sendRequest uint32 = 1 // TP_STATUS_SEND_REQUEST
)

// What no program run can show: tags that the kernel moves out of the packet,
// jumbo frames, IP packets shorter than their header, and packets of which no
// more than Ethernet header and tags is in the linear area.
func TestParserOnDevice(t *testing.T) {
	t.Parallel()
	packets := effort.Choose(devicePackets, devicePacketsShort)
	for _, test := range []struct {
		name   string
		ring   bool
		linear uint64 // bytes, of any packet at most
	}{
		{"sent", false, 14 + deviceMTU + 4},
		// Tags as well, up to 5 that stay in the packet: the kernel looks behind them.
		{"from a ring", true, 14 + 5*4},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDevice(t, test.ring)
			random := newDice(1, 0)
			for range packets / ringFrames {
				if !d.comparison.run(random.frames(ringFrames)) {
					break
				}
			}
			got := d.longest(t)
			if got > test.linear || got < 14 {
				t.Errorf("longest linear area: got %d bytes, want 14 to %d", got, test.linear)
			}
		})
	}
}

// frames makes unicast frames, a tenth of them jumbo, that the kernel delivers:
// one with a tag must go on for 2 bytes behind it.
func (d *dice) frames(n int) [][]byte {
	var frames [][]byte
	for len(frames) < n {
		frame := d.mutated()
		frame[0] &^= 1
		if d.percent(10) {
			frame = append(frame, make([]byte, d.below(14+deviceMTU-len(frame)))...)
		}
		if !tagged(frame) || len(frame) >= 20 {
			frames = append(frames, frame)
		}
	}
	return frames
}

func tagged(frame []byte) bool {
	ethertype := binary.BigEndian.Uint16(frame[12:])
	return ethertype == 0x8100 || ethertype == 0x88a8
}

// untagged returns a frame without its outermost tag.
func untagged(frame []byte) []byte {
	if !tagged(frame) {
		return frame
	}
	return slices.Concat(frame[:12], frame[16:])
}

// device is a veth whose host's end has the meter, and a socket at the other end.
type device struct {
	comparison *comparison
	socket     int
	ring       []byte // nil: packets are sent one by one
	sent       uint64
	linear     *ebpf.Map
}

func newDevice(t *testing.T, ring bool) *device {
	t.Helper()
	link := ktest.NewNode(t).Pod(t, ktest.PodOptions{NoAddress: true}) // nothing but our packets
	host, pod, index := link.Node, link.Namespace, link.Index
	d := &device{comparison: newComparisonAt(t, uint32(index))}
	d.comparison.seen, d.comparison.deliver = untagged, d.deliver
	linear, longest := linearProgram(t)
	d.linear = longest
	err := host.Do(func() error {
		return attachIngress("veth0", d.comparison.objects.PodmeterTransmit, linear)
	})
	if err != nil {
		t.Fatalf("attach to veth0: %v", err)
	}
	if err := pod.Do(func() error { return d.open("eth0", ring) }); err != nil {
		t.Fatalf("open packet socket: %v", err)
	}
	t.Cleanup(func() { d.close(t) })
	return d
}

// attachIngress sets the MTU and attaches programs, the first one first, by
// filters, which every kernel has.
func attachIngress(name string, programs ...*ebpf.Program) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, deviceMTU); err != nil {
		return err
	}
	index := link.Attrs().Index
	err = netlink.QdiscAdd(&netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
	for i, program := range programs {
		if err != nil {
			return err
		}
		err = netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS,
				Handle: 1, Priority: uint16(i + 1), Protocol: unix.ETH_P_ALL,
			},
			Fd: program.FD(), Name: "test", DirectAction: true,
		})
	}
	return err
}

// linearProgram returns a program that keeps the length of the longest linear
// area that it saw, and the map with it.
func linearProgram(t *testing.T) (*ebpf.Program, *ebpf.Map) {
	t.Helper()
	longest, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatalf("create map: %v", err)
	}
	t.Cleanup(func() { longest.Close() })
	const data, dataEnd = 76, 80 // of struct __sk_buff
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, data, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, dataEnd, asm.Word),
		asm.Sub.Reg(asm.R3, asm.R2),
		asm.LoadMapValue(asm.R4, longest.FD(), 0),
		asm.LoadMem(asm.R5, asm.R4, 0, asm.DWord),
		asm.JGE.Reg(asm.R5, asm.R3, "out"),
		asm.StoreMem(asm.R4, 0, asm.R3, asm.DWord),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"),
		asm.Return(),
	}})
	if err != nil {
		t.Fatalf("load program: %+v", err)
	}
	t.Cleanup(func() { program.Close() })
	return program, longest
}

func (d *device) longest(t *testing.T) (bytes uint64) {
	t.Helper()
	if err := d.linear.Lookup(uint32(0), &bytes); err != nil {
		t.Fatalf("look up longest linear area: %v", err)
	}
	return bytes
}

func (d *device) open(name string, ring bool) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, deviceMTU); err != nil {
		return err
	}
	// Without a protocol it receives nothing.
	if d.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err := unix.Bind(d.socket, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil || !ring {
		return err
	}
	if err := unix.SetsockoptInt(d.socket, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return err
	}
	request := unix.TpacketReq{Block_size: frameSize, Block_nr: ringFrames, Frame_size: frameSize, Frame_nr: ringFrames}
	if err := unix.SetsockoptTpacketReq(d.socket, unix.SOL_PACKET, unix.PACKET_TX_RING, &request); err != nil {
		return err
	}
	d.ring, err = unix.Mmap(d.socket, 0, ringFrames*frameSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return err
}

func (d *device) close(t *testing.T) {
	if d.ring != nil {
		if err := unix.Munmap(d.ring); err != nil {
			t.Errorf("unmap ring: %v", err)
		}
	}
	if err := unix.Close(d.socket); err != nil {
		t.Errorf("close packet socket: %v", err)
	}
}

// deliver sends packets and waits until all were counted.
func (d *device) deliver(packets [][]byte) {
	tb := d.comparison.tb
	tb.Helper()
	if err := d.send(packets); err != nil {
		tb.Fatalf("send packets: %v", err)
	}
	d.sent += uint64(len(packets))
	key := MeterTotalKey{Point: d.comparison.reference.point}
	deadline := time.Now().Add(ktest.Patience)
	for placeTotals(tb, d.comparison.objects.Totals0, key).Packets < d.sent {
		if time.Now().After(deadline) {
			tb.Fatalf("%d packets did not come to the meter", d.sent-placeTotals(tb, d.comparison.objects.Totals0, key).Packets)
		}
	}
}

func (d *device) send(packets [][]byte) error {
	for i, packet := range packets {
		if d.ring == nil {
			if _, err := unix.Write(d.socket, packet); err != nil {
				return err
			}
			continue
		}
		frame := d.ring[(int(d.sent)+i)%ringFrames*frameSize:] // the kernel goes round
		copy(frame[frameData:], packet)
		binary.NativeEndian.PutUint32(frame[4:], uint32(len(packet)))
		binary.NativeEndian.PutUint32(frame, sendRequest)
	}
	if d.ring == nil {
		return nil
	}
	// It blocks until the frames are free again.
	_, err := unix.SendmsgN(d.socket, nil, nil, nil, 0)
	return err
}
