// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// shadow adds a filter that is asked before ours and ends the chain.
func (h *host) shadow(t *testing.T) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, 0), // TC_ACT_OK
		asm.Return(),
	}})
	if err != nil {
		t.Fatalf("load program: %v", err)
	}
	defer program.Close()
	err = h.node.Do(func() error {
		return netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: h.index, Parent: netlink.HANDLE_MIN_INGRESS,
				Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
			Fd: program.FD(), Name: "foreign", DirectAction: true,
		})
	})
	if err != nil {
		t.Fatalf("add foreign filter: %v", err)
	}
}

// The status and the metrics of an agent with three capabilities tell within two
// drains that packets are hidden, and the pod's series has them all.
func TestShadowedIsReported(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := start(t, h.node, h.least(""),
		h.flags("--attach", "netlink", "--drain-interval", "1100ms")...)
	before := h.awaitAttached(t, p).Interfaces[0].Before[0]
	h.shadow(t)
	h.send(t, 50)
	client := newClient(h.sock)
	defer client.close()
	now, err := client.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	is := h.await(t, p, "veth0 is shadowed", func(s *agent.Status) bool { return s.Interfaces[0].State == "shadowed" })
	if drains := is.Drain.Count - now.Drain.Count; drains > 3 { // one may have been going on
		t.Errorf("got it after %d drains, want at most two full ones", drains)
	}
	h.await(t, p, "all that was hidden is exported", func(*agent.Status) bool {
		packets, _ := h.counters(t)
		return h.value(t, "podmeter_pod_transmit_packets_total", "pod", "veth0") == packets-float64(before.Packets)
	})
	if got := h.value(t, "podmeter_interfaces", "state", "shadowed"); got != 1 {
		t.Errorf("podmeter_interfaces{state=shadowed}: got %v, want 1", got)
	}
	if got := h.value(t, "podmeter_flow_transmit_packets_total", "peer_kind", "unattributed"); got < 50 {
		t.Errorf("unattributed: got %v packets, want at least the 50 that were hidden", got)
	}
	text := new(recorder).run(t, nil, "status", "--socket", h.sock).stdout
	for _, want := range []string{"shadowed  a program before ours", "veth0     transmit comes after bpf filter of priority 1, foreign, hidden so far: "} {
		if !strings.Contains(text, want) {
			t.Errorf("status: got\n%s, want %q in it", text, want)
		}
	}
}
