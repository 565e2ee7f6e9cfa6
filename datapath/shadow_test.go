// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ending is somebody's program that ends the chain: TC_ACT_OK for every packet,
// or with a port for those to that UDP port alone.
func ending(t testing.TB, port int) *ebpf.Program {
	t.Helper()
	const portOffset = ethernetHeader + 20 + 2
	instructions := asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	if port != 0 {
		instructions = asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadAbs(portOffset, asm.Half),
			asm.JEq.Imm(asm.R0, int32(port), "end"),
			asm.Mov.Imm(asm.R0, -1), // TC_ACT_UNSPEC
			asm.Return(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), // TC_ACT_OK
			asm.Return(),
		}
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: instructions})
	if err != nil {
		t.Fatalf("load program: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}

// foreignTCX attaches somebody's program, and returns what removes it.
func (w *wire) foreignTCX(t testing.TB, d flows.Direction, anchor link.Anchor, port int) (remove func()) {
	t.Helper()
	var l link.Link
	err := w.host.Do(func() (err error) {
		l, err = link.AttachTCX(link.TCXOptions{
			Interface: w.index, Program: ending(t, port), Attach: tcxAttachType(d), Anchor: anchor,
		})
		return err
	})
	if err != nil {
		t.Fatalf("attach foreign TCX program: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	return func() {
		if err := l.Close(); err != nil {
			t.Fatalf("detach foreign TCX program: %v", err)
		}
	}
}

// foreignFilter adds a filter of somebody who ends the chain, and returns what
// removes it.
func (w *wire) foreignFilter(t testing.TB, d flows.Direction, priority, protocol uint16, port int) (remove func()) {
	t.Helper()
	return w.addFilter(t, d, priority, protocol, ending(t, port))
}

// addFilter adds somebody's filter, and returns what removes it.
func (w *wire) addFilter(t testing.TB, d flows.Direction, priority, protocol uint16, program *ebpf.Program) (remove func()) {
	t.Helper()
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if d == flows.Receive {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: w.index, Parent: parent, Handle: 1, Protocol: protocol, Priority: priority},
		Fd:          program.FD(), Name: "foreign", DirectAction: true,
	}
	err := w.host.Do(func() error {
		if _, err := ensureClsact(w.index); err != nil {
			return err
		}
		return netlink.FilterAdd(filter)
	})
	if err != nil {
		t.Fatalf("add foreign filter: %v", err)
	}
	return func() {
		if err := w.host.Do(func() error { return netlink.FilterDel(filter) }); err != nil {
			t.Fatalf("delete foreign filter: %v", err)
		}
	}
}

// exchange sends packets both ways.
func (w *wire) exchange(t testing.TB, transmit, receive int) {
	t.Helper()
	w.pod.Send(t, "198.51.100.1:9", 100, transmit)
	w.host.Send(t, "198.51.100.2:9", 100, receive)
}

// awaitPublished waits until all that the interface counted has been published,
// but for what passed before.
func (m *testMeter) awaitPublished(t testing.TB, w *wire, unpublished byDirection) {
	t.Helper()
	var got, want byDirection
	err := ktest.Eventually(ktest.Patience, "all that the interface counted is published", func() bool {
		got, want = m.published("veth0"), byDirection(w.counters(t)).sub(unpublished)
		return w.agree(t, got, want)
	})
	if err != nil {
		t.Fatalf("%v: got %v, want %v, of which %d were dropped: %+v", err, got, want, w.dropped(t), m.status("veth0"))
	}
}

func (m *testMeter) status(name string) InterfaceStatus {
	for _, i := range m.Interfaces() {
		if i.Name == name {
			return i
		}
	}
	return InterfaceStatus{}
}

// Whoever ends the chain before us, in whichever way he came there, hides packets:
// that is told while it lasts, and they are published all the same.
func TestShadowed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mode   AttachMode
		tcx    bool // the foreign program is one of TCX
		attach func(*testing.T, *wire, flows.Direction) (remove func())
		who    string
	}{
		{"TCX at the head after us", AttachTCX, true, func(t *testing.T, w *wire, d flows.Direction) func() {
			return w.foreignTCX(t, d, link.Head(), 0)
		}, "TCX program "},
		{"TCX before our filter", AttachNetlink, true, func(t *testing.T, w *wire, d flows.Direction) func() {
			return w.foreignTCX(t, d, link.Tail(), 0)
		}, "TCX program "},
		{"newer filter in our priority", AttachNetlink, false, func(t *testing.T, w *wire, d flows.Direction) func() {
			return w.foreignFilter(t, d, 1, unix.ETH_P_ALL, 0)
		}, "bpf filter of priority 1, foreign"},
	} {
		for d := range flows.Direction(flows.Directions) {
			t.Run(test.name+" "+d.String(), func(t *testing.T) {
				t.Parallel() // each waits for comparisons of the ledger
				requireMode(t, test.mode)
				if test.tcx {
					requireMode(t, AttachTCX)
				}
				w := newWire(t)
				w.exchange(t, 7, 7)
				m := startMeter(t, w.host, func(o *Options) { o.Attach = test.mode })
				m.awaitState(t, "veth0", StateAttached)
				unpublished := before(m, "veth0")
				w.exchange(t, 20, 20)
				remove := test.attach(t, w, d)
				w.exchange(t, 30, 40)
				m.awaitState(t, "veth0", StateShadowed)
				if who := m.status("veth0").Ahead[d]; len(who) != 1 || !strings.HasPrefix(who[0], test.who) {
					t.Errorf("before us: got %q, want %q", who, test.who)
				}
				w.exchange(t, 50, 60)
				m.awaitPublished(t, w, unpublished)
				remove()
				w.exchange(t, 11, 12) // counted again
				m.awaitState(t, "veth0", StateAttached)
				w.exchange(t, 13, 14)
				m.awaitPublished(t, w, unpublished)
				checkHidden(t, m, d)
				ended := w.ended(t).sub(unpublished)
				m.stop()
				if got := m.published("veth0"); !w.agree(t, got, ended) {
					t.Errorf("got %v, want the interface's %v", got, ended)
				}
			})
		}
	}
}

// checkHidden expects what was sent while the direction was shadowed to be seeded,
// and nothing else.
func checkHidden(t *testing.T, m *testMeter, d flows.Direction) {
	t.Helper()
	least := [flows.Directions]uint64{30 + 50, 40 + 60}[d] // ICMP may come besides
	counts := [flows.Directions]uint64{7 + 20 + 11 + 13, 7 + 20 + 12 + 14}[d]
	totals, seeded := m.book.of("veth0")
	if seeded[d].Packets < least || totals[d].Packets < counts-7 || seeded[1-d] != (flows.Counters{}) {
		t.Errorf("got %v counted and %v seeded, want at least %d and %d packets, and none seeded the other way",
			totals, seeded, counts-7, least)
	}
	i := m.status("veth0")
	if i.Hidden[d] != seeded[d] || i.Difference != [flows.Directions]int64{} {
		t.Errorf("status: got %v hidden and %v different, want %v and none", i.Hidden, i.Difference, seeded)
	}
}
