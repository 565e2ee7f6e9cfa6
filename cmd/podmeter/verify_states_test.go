// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// stateCase is an interface in a state, made with packets.
type stateCase struct {
	name, state string
	flags       []string
	prepare     func(*testing.T, *host) // before the agent starts
	traffic     func(*testing.T, *host) // while it runs
	want        [flows.Directions]verify.Verdict
	// unseen is in the report's reasons of what no program saw, empty for nothing; why in
	// that of the row that is not equal.
	unseen, why string
	// predicted is by what direction and sign the interface is to differ.
	predicted [flows.Directions]verify.Delta
}

func seenByOthersCases() []stateCase {
	return []stateCase{
		{name: "shadowed", state: "shadowed", flags: []string{"--attach", "netlink"}, want: bothEqual,
			traffic: func(t *testing.T, h *host) {
				h.exchange(t, 10, 10)
				h.shadow(t)
				h.exchange(t, 50, 20)
			}, unseen: "hidden by a program before podmeter's"},
		{name: "partial", state: "partial", flags: []string{"--attach", "netlink"}, want: bothEqual,
			prepare: func(t *testing.T, h *host) {
				h.exchange(t, 5, 5)
				h.ingressQdisc(t)
			},
			traffic: func(t *testing.T, h *host) { h.exchange(t, 40, 30) }, unseen: "no hook"},
		{name: "bypassed", state: "bypassed", flags: []string{"--interfaces", "veth0"}, want: bothEqual,
			prepare: func(t *testing.T, h *host) {
				h.exchange(t, 5, 5)
				h.detour(t)
			},
			traffic: func(t *testing.T, h *host) {
				h.exchange(t, 40, 30)
				h.roundabout(t)
			}, unseen: "round the host's end"},
	}
}

func differsCases() []stateCase {
	receive := [flows.Directions]verify.Verdict{verify.Equal, verify.Explained}
	return []stateCase{
		{name: "segments behind podmeter", state: "differs", want: receive, why: "cut to segments",
			prepare: func(t *testing.T, h *host) { h.node.Offload(t, "veth0", unix.ETHTOOL_STSO, false) },
			traffic: func(t *testing.T, h *host) {
				h.exchange(t, 40, 30)
				h.download(t)
			},
			predicted: [flows.Directions]verify.Delta{flows.Receive: {Bytes: 1, Packets: 1}}},
		{name: "drops behind podmeter", state: "differs", want: receive, why: "dropped behind podmeter",
			prepare: func(t *testing.T, h *host) { h.smallMTU(t) },
			traffic: func(t *testing.T, h *host) { h.exchange(t, 40, 30) },
			// And what the node answers by ICMP, as far as that is too large.
			predicted: [flows.Directions]verify.Delta{flows.Receive: {Bytes: -1, Packets: -1}}},
		{name: "the same packets, of other lengths", state: "attached", why: "of other lengths",
			want: [flows.Directions]verify.Verdict{verify.Explained, verify.Equal},
			traffic: func(t *testing.T, h *host) {
				h.exchange(t, 40, 30)
				h.tagged(t, 25)
			},
			predicted: [flows.Directions]verify.Delta{flows.Transmit: {Bytes: 25 * 4}}},
	}
}

// In each state an interface comes out equal, to the byte, or differs by exactly what
// the state predicts.
func TestVerifyOfStates(t *testing.T) {
	t.Parallel()
	for _, c := range append(seenByOthersCases(), differsCases()...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if c.prepare != nil {
				c.prepare(t, h)
			}
			p := start(t, h.node, nil, h.resting(c.flags...)...)
			h.awaitMetered(t, p)
			c.traffic(t, h)
			c.check(t, h.verify(t))
		})
	}
}

func (c *stateCase) check(t *testing.T, p *proof) {
	t.Helper()
	p.check(t, "veth0", c.want, 1)
	for d := range flows.Direction(flows.Directions) {
		row := p.row(t, "veth0", d)
		if row.State != c.state || row.Difference != row.Predicted || !alike(row.Predicted, c.predicted[d]) {
			t.Errorf("%v: got %+v, want it in state %s, predicted like %+v", d, row, c.state, c.predicted[d])
		}
		if row.Verdict == verify.Explained && !strings.Contains(row.Why, c.why) {
			t.Errorf("%v: got the reason %q, want %q", d, row.Why, c.why)
		}
	}
	told := false
	for _, u := range p.report.Unseen {
		told = told || c.unseen != "" && strings.Contains(u.Why, c.unseen) && u.Counters.Packets > 0
	}
	if told != (c.unseen != "") {
		t.Errorf("got %+v unseen, want %q told", p.report.Unseen, c.unseen)
	}
}

// alike reports whether a difference is what is wanted, or of its sign where that is 1.
func alike(got, want verify.Delta) bool {
	switch want {
	case verify.Delta{Bytes: 1, Packets: 1}:
		return got.Bytes > 0 && got.Packets > 0
	case verify.Delta{Bytes: -1, Packets: -1}:
		return got.Bytes <= -30*142 && got.Packets <= -30
	}
	return got == want
}

// ingressQdisc takes the place of a clsact.
func (h *host) ingressQdisc(t *testing.T) {
	t.Helper()
	err := h.node.Do(func() error {
		return netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: h.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS,
		}})
	})
	if err != nil {
		t.Fatalf("add ingress qdisc: %v", err)
	}
}

// detour lets a program on another interface take its packets round the host's end of the
// veth, if the kernel counts such.
func (h *host) detour(t *testing.T) {
	t.Helper()
	h.outside = ktest.NewNamespace(t)
	h.outside.Sysctl(t, "net/ipv6/conf/default/disable_ipv6", "1")
	uplink := h.node.Veth(t, "up0", h.outside, "eth0")
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(h.index)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirectPeer.Call(),
		asm.Return(),
	}})
	if err != nil {
		t.Fatalf("load program: %v", err)
	}
	defer program.Close()
	err = h.node.Do(func() error {
		clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: uplink, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		}}
		return errors.Join(netlink.QdiscAdd(clsact), netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: uplink, Parent: netlink.HANDLE_MIN_INGRESS,
				Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
			Fd: program.FD(), Name: "detour", DirectAction: true,
		}))
	})
	if err != nil {
		t.Fatalf("add filter: %v", err)
	}
	before := h.podReceived(t)
	h.roundabout(t)
	if h.podReceived(t) == before {
		t.Skip("this kernel does not count redirected packets (Linux 6.7)")
	}
}

// roundabout sends 50 frames round the host's end.
func (h *host) roundabout(t *testing.T) {
	t.Helper()
	packet := ktest.Packet(ktest.Ethernet(unix.ETH_P_IP), ktest.IPv4(netip.MustParseAddr("203.0.113.9"),
		netip.MustParseAddr("198.51.100.2"), flows.ProtocolUDP), ktest.Ports(7, 9), make([]byte, 60))
	injector := h.outside.NewInjector(t, "eth0", false)
	for range 50 {
		if sent, err := injector.Send(packet); err != nil || sent != 1 {
			t.Fatalf("inject: got %d frames taken, %v, want 1", sent, err)
		}
	}
}

// podReceived is what the pod's end counts.
func (h *host) podReceived(t *testing.T) (packets uint64) {
	t.Helper()
	err := h.pod.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			packets = l.Attrs().Statistics.RxPackets
		}
		return err
	})
	if err != nil {
		t.Fatalf("read counters: %v", err)
	}
	return packets
}

// smallMTU makes the pod's end drop what the host's end hands over.
func (h *host) smallMTU(t *testing.T) {
	t.Helper()
	err := h.pod.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, 100)
	})
	if err != nil {
		t.Fatalf("set MTU: %v", err)
	}
}

// tagged sends frames with a VLAN tag in them out of the pod.
func (h *host) tagged(t *testing.T, count int) {
	t.Helper()
	frame := ktest.Packet(ktest.Ethernet(unix.ETH_P_8021Q), ktest.VLAN(5, unix.ETH_P_IP), ktest.IPv4(
		netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("198.51.100.1"), flows.ProtocolUDP), ktest.Ports(7, 9), make([]byte, 60))
	injector := h.pod.NewInjector(t, "eth0", false)
	for range count {
		if sent, err := injector.Send(frame); err != nil || sent != 1 {
			t.Fatalf("inject: got %d frames taken, %v, want 1", sent, err)
		}
	}
}

// download lets the pod receive large TCP packets.
func (h *host) download(t *testing.T) {
	t.Helper()
	const size = 1 << 20
	var listener net.Listener
	err := h.node.Do(func() (err error) {
		listener, err = net.Listen("tcp", "198.51.100.1:0")
		return err
	})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	defer listener.Close()
	sent := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = conn.Write(make([]byte, size))
			err = errors.Join(err, conn.Close())
		}
		sent <- err
	}()
	var received int64
	err = h.pod.Do(func() error {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		received, err = io.Copy(io.Discard, conn)
		return err
	})
	if err := errors.Join(err, <-sent); err != nil || received != size {
		t.Fatalf("download: got %d bytes, %v, want %d", received, err, size)
	}
}

// What the agent itself does not know of an interface yet cannot be judged, nor what an
// earlier build exported of it: the code is 3, and each is named.
func TestVerifyOfStatesThatCannotBeJudged(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for verdict, change := range map[verify.Verdict]func(*agent.InterfaceStatus){
		verify.Settling: func(i *agent.InterfaceStatus) { i.State = "settling" },
		verify.Unknown:  func(i *agent.InterfaceStatus) { i.ExportedPartly = true },
	} {
		t.Run(string(verdict), func(t *testing.T) {
			status := &agent.Status{Interfaces: []agent.InterfaceStatus{{Name: "veth0", Index: h.index, Pod: "veth0", State: "attached"}}}
			change(&status.Interfaces[0])
			mux := http.NewServeMux()
			mux.HandleFunc("GET "+agent.StatusPath, func(w http.ResponseWriter, _ *http.Request) {
				if err := json.NewEncoder(w).Encode(status); err != nil {
					t.Error(err)
				}
			})
			mux.HandleFunc("POST "+agent.DrainPath, func(http.ResponseWriter, *http.Request) {})
			mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, "podmeter_conservation_error_bytes_total 0\npodmeter_lost_bytes_total{reason=\"no_interface\"} 0\n")
			})
			asked := *h
			asked.sock = serve(t, mux)
			proof := asked.verify(t)
			if row := proof.row(t, "veth0", flows.Transmit); proof.code != verify.CodeUndecided || row.Verdict != verdict {
				t.Errorf("got code %d and %+v, want %d and %s", proof.code, row, verify.CodeUndecided, verdict)
			}
			if said := proof.stderr.String(); !strings.Contains(said, string(verdict)+": veth0") {
				t.Errorf("got %q, want the interface and its verdict", said)
			}
		})
	}
}
