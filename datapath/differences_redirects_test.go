// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/flows"
)

// redirectRows are of foreign programs that give packets to the interface past podmeter, or
// take them behind it.
func redirectRows() []row {
	elsewhere := func(t *testing.T, w *wire) { inject(t, w.host, "veth8", false, plainFrames()) }
	toPod := func(t *testing.T, w *wire) { inject(t, w.host, "veth0", false, plainFrames()) }
	frames := int64(injected) * int64(len(plainFrames()[0]))
	past := func(*scene) (a apart) {
		a[flows.Receive].bytes, a[flows.Receive].packets = frames, injected
		return a
	}
	behind := func(s *scene) (a apart) {
		sent := s.sent[flows.Receive]
		a[flows.Receive].bytes, a[flows.Receive].packets = -int64(sent.bytes), -int64(sent.packets)
		return a
	}
	return []row{
		{name: "bpf_redirect with BPF_F_INGRESS into the host's end", traffic: elsewhere, state: StateDiffers,
			prepare: func(t *testing.T, w *wire) string {
				w.host.VethWithin(t, "veth7", "veth8")
				w.up(t, "veth7", "veth8")
				w.filter(t, "veth7", netlink.HANDLE_MIN_INGRESS, redirectTo(w.index, bpfFIngress))
				return ""
			},
			predict: func(*scene) (a apart) { // the pod has sent none of it
				a[flows.Transmit].bytes, a[flows.Transmit].packets = -frames, -injected
				return a
			}},
		{name: "native XDP_REDIRECT into the host's end, XDP on the pod's", traffic: elsewhere, state: StateDiffers, predict: past,
			prepare: func(t *testing.T, w *wire) string {
				w.redirectByXDP(t, link.XDPDriverMode)
				return attachXDP(t, w.pod, "eth0", link.XDPDriverMode, 0) // else the veth drops them
			}},
		{name: "generic XDP_REDIRECT into the host's end", traffic: elsewhere, state: StateDiffers, predict: past,
			prepare: func(t *testing.T, w *wire) string {
				w.redirectByXDP(t, link.XDPGenericMode)
				return ""
			}},
		{name: "a program behind podmeter's on egress that drops", prepare: unprepared, predict: behind, state: StateDiffers,
			traffic: func(t *testing.T, w *wire) {
				const shot = 2 // TC_ACT_SHOT
				w.filter(t, "veth0", netlink.HANDLE_MIN_EGRESS, asm.Instructions{asm.Mov.Imm(asm.R0, shot), asm.Return()})
				injector := w.host.NewInjector(t, "veth0", false)
				for _, frame := range plainFrames() {
					injector.Send(frame) // which the kernel says it has not
				}
			}},
		{name: "a program behind podmeter's on egress that redirects", predict: behind, state: StateDiffers,
			prepare: func(t *testing.T, w *wire) string {
				w.host.VethWithin(t, "veth7", "veth8")
				w.up(t, "veth7", "veth8")
				return ""
			},
			traffic: func(t *testing.T, w *wire) {
				w.filter(t, "veth0", netlink.HANDLE_MIN_EGRESS, redirectTo(w.indexOf(t, "veth7"), 0))
				toPod(t, w)
			}},
	}
}

const bpfFIngress = 1 // BPF_F_INGRESS

// redirectTo is a program of TC or XDP that gives all packets to another link.
func redirectTo(ifindex, flags int) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(ifindex)),
		asm.Mov.Imm(asm.R2, int32(flags)),
		asm.FnRedirect.Call(),
		asm.Return(),
	}
}

// redirectByXDP makes a device whose frames go to the host's end of the wire.
func (w *wire) redirectByXDP(t *testing.T, mode link.XDPAttachFlags) {
	t.Helper()
	w.host.VethWithin(t, "veth7", "veth8")
	w.up(t, "veth7", "veth8")
	runXDP(t, w.host, "veth7", mode, 0, redirectTo(w.index, 0))
}

func (w *wire) up(t *testing.T, devices ...string) {
	t.Helper()
	for _, device := range devices {
		err := w.host.Do(func() error {
			l, err := netlink.LinkByName(device)
			if err != nil {
				return err
			}
			return netlink.LinkSetUp(l)
		})
		if err != nil {
			t.Fatalf("set %s up: %v", device, err)
		}
	}
}

func (w *wire) indexOf(t *testing.T, device string) (index int) {
	t.Helper()
	err := w.host.Do(func() error {
		l, err := netlink.LinkByName(device)
		if err == nil {
			index = l.Attrs().Index
		}
		return err
	})
	if err != nil {
		t.Fatalf("look for %s: %v", device, err)
	}
	return index
}

// filter attaches a foreign program to a device of the host, behind all that is there.
func (w *wire) filter(t *testing.T, device string, parent uint32, instructions asm.Instructions) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: instructions})
	if err != nil {
		t.Fatalf("load foreign program: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	index := w.indexOf(t, device)
	err = w.host.Do(func() error {
		if _, err := ensureClsact(index); err != nil {
			return err
		}
		return netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 20},
			Fd:          program.FD(), Name: "foreign", DirectAction: true,
		})
	})
	if err != nil {
		t.Fatalf("attach foreign program to %s: %v", device, err)
	}
}
