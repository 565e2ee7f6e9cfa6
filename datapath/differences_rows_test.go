// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	datagram = 14 + 20 + 8 + 100 // bytes of a frame with 100 of payload
	injected = 100               // frames that a row injects
)

func xdpRows() []row {
	both := func(t *testing.T, w *wire) {
		sendTCP(t, w.pod, w.host, "198.51.100.1")
		sendTCP(t, w.host, w.pod, "198.51.100.2")
	}
	return []row{
		{name: "native XDP on the host's end, UDP from the pod", state: StateAttached,
			prepare: func(t *testing.T, w *wire) string { return attachXDP(t, w.host, "veth0", link.XDPDriverMode, 0) },
			traffic: func(t *testing.T, w *wire) { w.pod.Send(t, "198.51.100.1:9", 100, 200) },
			predict: func(s *scene) (a apart) {
				a[flows.Transmit].bytes = -ethernetHeader * int64(s.sent[flows.Transmit].packets)
				return a
			}},
		{name: "native XDP on the pod's end, TCP to and from the pod", state: StateDiffers,
			prepare: func(t *testing.T, w *wire) string { return attachXDP(t, w.pod, "eth0", link.XDPDriverMode, 0) },
			traffic: both, predict: countedByNAPI(flows.Receive)},
		{name: "generic XDP with frags on the host's end", state: StateAttached,
			prepare: func(t *testing.T, w *wire) string {
				if !kernelCopiesForGenericXDP(t) {
					return "before Linux 6.9 generic XDP has no frags: it linearizes, and the Ethernet header stays"
				}
				return attachXDP(t, w.host, "veth0", link.XDPGenericMode, unix.BPF_F_XDP_HAS_FRAGS)
			},
			traffic: both,
			predict: func(s *scene) (a apart) {
				a[flows.Transmit].bytes = ethernetHeader * int64(s.sent[flows.Transmit].packets)
				return a
			}},
	}
}

func pathRows() []row {
	toPod := func(t *testing.T, w *wire) { w.host.Send(t, "198.51.100.2:9", 100, 300) }
	return []row{
		{name: "pod's MTU below the packet", prepare: smallMTU, traffic: toPod, predict: droppedAfterUs, state: StateDiffers},
		{name: "tbf on the host's end", state: StateDiffers, traffic: toPod, predict: droppedAfterUs,
			prepare: func(t *testing.T, w *wire) string {
				// Rate in bytes/s, limit in bytes, buffer in ticks of 64 ns: 0.6 s for what is
				// sent, which takes even an emulated machine less.
				return w.shape(t, &netlink.Tbf{QdiscAttrs: w.root(), Rate: 1 << 16, Limit: 3000, Buffer: 500_000})
			}},
		{name: "netem that loses on the host's end", state: StateDiffers, traffic: toPod, predict: droppedAfterUs,
			prepare: func(t *testing.T, w *wire) string {
				return w.shape(t, netlink.NewNetem(w.root(), netlink.NetemQdiscAttrs{Loss: 50}))
			}},
		{name: "802.1Q and QinQ tags in the frame", prepare: unprepared, state: StateAttached,
			traffic: func(t *testing.T, w *wire) {
				inject(t, w.pod, "eth0", false, taggedFrames())
				inject(t, w.host, "veth0", false, taggedFrames())
			},
			predict: func(*scene) (a apart) { // the outer tag is moved to metadata before us
				a[flows.Transmit].bytes = vlanTag * injected
				return a
			}},
		{name: "frames that end within an 802.1Q tag or right behind it", prepare: unprepared, state: StateDiffers,
			traffic: func(t *testing.T, w *wire) {
				inject(t, w.pod, "eth0", false, cutTags())
				inject(t, w.pod, "eth0", false, plainFrames())
			},
			predict: func(*scene) (a apart) { // the kernel drops them before TC (skb_vlan_untag)
				for _, frame := range cutTags() {
					a[flows.Transmit].bytes += int64(len(frame))
					a[flows.Transmit].packets++
				}
				return a
			}},
		{name: "a VLAN device in the pod", prepare: vlanDevices, predict: equal, state: StateAttached, equal: true,
			traffic: func(t *testing.T, w *wire) {
				w.pod.Send(t, "203.0.113.1:9", 100, 200)
				w.host.Send(t, "203.0.113.2:9", 100, 200)
			}},
		{name: "PACKET_QDISC_BYPASS", prepare: unprepared, state: StateDiffers,
			traffic: func(t *testing.T, w *wire) { inject(t, w.host, "veth0", true, plainFrames()) },
			predict: func(*scene) (a apart) {
				a[flows.Receive].bytes, a[flows.Receive].packets = injected*int64(len(plainFrames()[0])), injected
				return a
			}},
	}
}

// droppedAfterUs is the difference where a qdisc or the veth itself drops
// datagrams that podmeter has counted.
func droppedAfterUs(s *scene) (a apart) {
	a[flows.Receive].bytes, a[flows.Receive].packets = -datagram*int64(s.dropped), -int64(s.dropped)
	return a
}

func (w *wire) root() netlink.QdiscAttrs {
	return netlink.QdiscAttrs{LinkIndex: w.index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
}

func (w *wire) shape(t *testing.T, q netlink.Qdisc) (lacks string) {
	t.Helper()
	// A request or an answer that the qdisc loses would come again later.
	w.host.Introduce(t, "veth0", "198.51.100.2", w.pod, "eth0")
	w.pod.Introduce(t, "eth0", "198.51.100.1", w.host, "veth0")
	err := w.host.Do(func() error { return netlink.QdiscAdd(q) })
	if errors.Is(err, unix.ENOENT) {
		return "this kernel has no qdisc " + q.Type()
	}
	if err != nil {
		t.Fatalf("add qdisc %s: %v", q.Type(), err)
	}
	return ""
}

func smallMTU(t *testing.T, w *wire) string {
	t.Helper()
	err := w.pod.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, 100)
	})
	if err != nil {
		t.Fatalf("set MTU: %v", err)
	}
	return ""
}

// vlanDevices gives both ends a device of VLAN 5 with an address of its own.
func vlanDevices(t *testing.T, w *wire) (lacks string) {
	t.Helper()
	for parent, address := range map[string]string{"veth0": "203.0.113.1/24", "eth0": "203.0.113.2/24"} {
		ns := w.host
		if parent == "eth0" {
			ns = w.pod
		}
		err := ns.Do(func() error {
			l, err := netlink.LinkByName(parent)
			if err != nil {
				return err
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.ParentIndex, attrs.Flags = "vlan5", l.Attrs().Index, net.FlagUp
			return netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: 5})
		})
		if errors.Is(err, unix.EOPNOTSUPP) {
			return "this kernel has no VLAN devices"
		}
		if err != nil {
			t.Fatalf("add VLAN device: %v", err)
		}
		ns.Address(t, "vlan5", address)
	}
	return ""
}

// attachXDP attaches a program of the test that passes everything on.
func attachXDP(t *testing.T, ns *ktest.Namespace, device string, mode link.XDPAttachFlags, flags uint32) (lacks string) {
	t.Helper()
	runXDP(t, ns, device, mode, flags, asm.Instructions{
		asm.Mov.Imm(asm.R0, 2), // XDP_PASS
		asm.Return(),
	})
	return ""
}

// runXDP attaches a program of the test.
func runXDP(t *testing.T, ns *ktest.Namespace, device string, mode link.XDPAttachFlags, flags uint32, instructions asm.Instructions) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Flags: flags, Instructions: instructions})
	if err != nil {
		t.Fatalf("load XDP program: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	err = ns.Do(func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: l.Attrs().Index, Flags: mode})
		if err == nil {
			t.Cleanup(func() { attached.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatalf("attach XDP: %v", err)
	}
}

// kernelCopiesForGenericXDP reports whether generic XDP knows frags, for which it
// copies a packet: Linux 6.9. Nothing but its version tells.
func kernelCopiesForGenericXDP(t *testing.T) bool {
	t.Helper()
	return ktest.Kernel(t).AtLeast(ktest.Version{Major: 6, Minor: 9})
}

// passed is what a program of the test saw pass.
type passed struct{ packets, bytes, segments uint64 }

// watch counts what both ends send, at TC egress; the segments that a large packet
// will be cut to besides. The function it returns reads the counts.
func (w *wire) watch(t *testing.T) func() [flows.Directions]passed {
	t.Helper()
	read := [flows.Directions]func() passed{
		flows.Transmit: watchEgress(t, w.pod, "eth0"),
		flows.Receive:  watchEgress(t, w.host, "veth0"),
	}
	return func() (all [flows.Directions]passed) {
		for d := range all {
			all[d] = read[d]()
		}
		return all
	}
}

func watchEgress(t *testing.T, ns *ktest.Namespace, device string) func() passed {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: 1})
	if err != nil {
		t.Fatalf("create map: %v", err)
	}
	t.Cleanup(func() { m.Close() })
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: watcher(m)})
	if err != nil {
		t.Fatalf("load watching program: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	if err := ns.Do(func() error { return filterEgress(device, program) }); err != nil {
		t.Fatalf("watch %s: %v", device, err)
	}
	return func() (p passed) {
		var values [3]uint64
		if err := m.Lookup(uint32(0), &values); err != nil {
			t.Fatalf("look up what passed: %v", err)
		}
		return passed{packets: values[0], bytes: values[1], segments: values[2]}
	}
}

// watcher adds to the three values of a map. The offsets into the context are
// those of struct __sk_buff (linux/bpf.h).
func watcher(m *ebpf.Map) asm.Instructions {
	const lenOffset, segmentsOffset = 0, 164
	return asm.Instructions{
		asm.LoadMapValue(asm.R3, m.FD(), 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R3, asm.R2, asm.DWord),
		asm.Add.Imm(asm.R3, 8),
		asm.LoadMem(asm.R2, asm.R1, lenOffset, asm.Word),
		asm.StoreXAdd(asm.R3, asm.R2, asm.DWord),
		asm.Add.Imm(asm.R3, 8),
		asm.LoadMem(asm.R2, asm.R1, segmentsOffset, asm.Word),
		asm.JNE.Imm(asm.R2, 0, "add"),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R3, asm.R2, asm.DWord).WithSymbol("add"),
		asm.Mov.Imm(asm.R0, -1), // TC_ACT_UNSPEC
		asm.Return(),
	}
}

func filterEgress(device string, program *ebpf.Program) error {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil {
		return err
	}
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_MIN_EGRESS,
			Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 9},
		Fd: program.FD(), Name: "watch", DirectAction: true,
	})
}

// sendTCP sends bulk bytes from one namespace to an address of the other.
func sendTCP(t *testing.T, from, to *ktest.Namespace, address string) {
	t.Helper()
	var listener net.Listener
	err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp4", net.JoinHostPort(address, "0"))
		return err
	})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	defer listener.Close()
	received := make(chan int64, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			received <- 0
			return
		}
		defer conn.Close()
		n, _ := io.Copy(io.Discard, conn)
		received <- n
	}()
	err = from.Do(func() error {
		conn, err := net.DialTCP("tcp4", nil, listener.Addr().(*net.TCPAddr))
		if err != nil {
			return err
		}
		// Fewer segments on the way than the ring of a veth with NAPI holds: what it
		// drops nobody would have counted.
		if err := conn.SetWriteBuffer(64 << 10); err != nil {
			return err
		}
		_, err = conn.Write(make([]byte, bulk))
		return errors.Join(err, conn.Close())
	})
	if got := <-received; err != nil || got != bulk {
		t.Fatalf("send TCP: got %d bytes, %v, want %d", got, err, bulk)
	}
}

// inject sends frames and wants all of them to be taken.
func inject(t *testing.T, from *ktest.Namespace, device string, bypass bool, frames [][]byte) {
	t.Helper()
	if sent, err := from.NewInjector(t, device, bypass).Send(frames...); err != nil || sent != len(frames) {
		t.Fatalf("inject: got %d frames taken, %v, want %d", sent, err, len(frames))
	}
}

func ipPacket() []byte {
	return ktest.Packet(ktest.IPv4(netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("203.0.113.9"),
		flows.ProtocolUDP), ktest.Ports(7, 9), make([]byte, 60))
}

func plainFrames() (frames [][]byte) {
	for range injected {
		frames = append(frames, ktest.Packet(ktest.Ethernet(unix.ETH_P_IP), ipPacket()))
	}
	return frames
}

// taggedFrames are frames with one tag and with two in turn.
func taggedFrames() (frames [][]byte) {
	for n := range injected {
		tags := ktest.Packet(ktest.Ethernet(unix.ETH_P_8021Q), ktest.VLAN(5, unix.ETH_P_IP))
		if n%2 == 1 {
			tags = ktest.Packet(ktest.Ethernet(unix.ETH_P_8021AD), ktest.VLAN(7, unix.ETH_P_8021Q), ktest.VLAN(5, unix.ETH_P_IP))
		}
		frames = append(frames, ktest.Packet(tags, ipPacket()))
	}
	return frames
}

// cutTags are frames with a tag behind which fewer bytes than an EtherType and two more are
// left, of each length and both kinds of tags.
func cutTags() (frames [][]byte) {
	const kept = 6 // bytes behind the Ethernet header that the kernel needs to read the tag
	for _, kind := range []uint16{unix.ETH_P_8021Q, unix.ETH_P_8021AD} {
		for length := range kept {
			frames = append(frames, ktest.Packet(ktest.Ethernet(kind), make([]byte, length)))
		}
	}
	return frames
}
