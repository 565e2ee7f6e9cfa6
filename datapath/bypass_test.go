// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// detour is a third namespace whose packets somebody's program on the host takes
// round the host's end of the wire, straight to the pod.
type detour struct {
	*wire
	injector *ktest.Injector
}

// newDetour attaches the program where its device's packets come in.
func newDetour(t testing.TB, w *wire) *detour {
	t.Helper()
	uplink := wireFrom(t, w.host, ktest.PodOptions{Device: "up0", NoAddress: true})
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(w.index)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirectPeer.Call(),
		asm.Return(),
	}})
	if err != nil {
		t.Fatalf("load program: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	err = w.host.Do(func() error {
		if _, err := ensureClsact(uplink.index); err != nil {
			return err
		}
		return netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: uplink.index, Parent: netlink.HANDLE_MIN_INGRESS,
				Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
			Fd: program.FD(), Name: "detour", DirectAction: true,
		})
	})
	if err != nil {
		t.Fatalf("add filter: %v", err)
	}
	return &detour{wire: w, injector: uplink.pod.NewInjector(t, "eth0", false)}
}

// send takes frames round the host's end.
func (d *detour) send(t testing.TB) {
	t.Helper()
	if sent, err := d.injector.Send(plainFrames()...); err != nil || sent != injected {
		t.Fatalf("inject: got %d frames taken, %v, want %d", sent, err, injected)
	}
}

// podSide is what the pod's end counts, by direction as the pod sees it.
func (w *wire) podSide(t testing.TB) (c byDirection) {
	t.Helper()
	err := w.pod.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		s := l.Attrs().Statistics
		c[flows.Transmit] = flows.Counters{Bytes: s.TxBytes, Packets: s.TxPackets}
		c[flows.Receive] = flows.Counters{Bytes: s.RxBytes, Packets: s.RxPackets}
		return nil
	})
	if err != nil {
		t.Fatalf("read counters: %v", err)
	}
	return c
}

// surplus is what the pod's end counts beyond the host's: what went round.
func (w *wire) surplus(t testing.TB) byDirection {
	t.Helper()
	w.settled(t)
	for {
		before, far, after := byDirection(w.counters(t)), w.podSide(t), byDirection(w.counters(t))
		if before == after {
			return far.sub(after)
		}
	}
}

// awaitPodSide waits until all that the pod's end counted has been published, but
// for what is not to be.
func (m *testMeter) awaitPodSide(t testing.TB, w *wire, unpublished byDirection) {
	t.Helper()
	ktest.Await(t, "all that the pod's end counted is published", func() bool {
		return m.published("veth0") == w.podSide(t).sub(unpublished)
	})
}

// requireCountedRedirects skips the test where the kernel does not count what is
// redirected to the other end.
func requireCountedRedirects(t testing.TB) {
	t.Helper()
	w := newWire(t)
	d := newDetour(t, w)
	before := w.podSide(t)[flows.Receive].Packets
	d.send(t)
	within := 200 * time.Millisecond // for a softirq of another CPU
	if ktest.Kernel(t).AtLeast(ktest.LinuxRedirects) {
		within = ktest.Patience
	}
	err := ktest.Eventually(within, "a redirected packet is counted", func() bool {
		return w.podSide(t)[flows.Receive].Packets > before
	})
	if err != nil {
		ktest.Lacks(t, "counts of redirected packets", ktest.LinuxRedirects)
	}
}

// What reaches the pod round the host's end is told, and published from what the
// pod's end counts, to the byte.
func TestBypassed(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			requireCountedRedirects(t)
			w := newWire(t)
			d := newDetour(t, w)
			w.exchange(t, 5, 5)
			d.send(t)
			round := w.surplus(t)
			m := startMeter(t, w.host, func(o *Options) { o.Attach, o.Interfaces = mode, []string{"veth0"} })
			m.awaitState(t, "veth0", StateAttached)
			unpublished := before(m, "veth0").add(round)
			w.exchange(t, 20, 30)
			d.send(t)
			m.awaitState(t, "veth0", StateBypassed)
			w.exchange(t, 20, 30)
			d.send(t)
			m.awaitPodSide(t, w, unpublished)
			want := flows.Counters{Bytes: 2 * injected * uint64(len(plainFrames()[0])), Packets: 2 * injected}
			if _, seeded := m.book.of("veth0"); seeded != (byDirection{flows.Receive: want}) {
				t.Errorf("seeded: got %v, want %v received", seeded, want)
			}
			i := m.status("veth0")
			if i.Bypassed != want || i.Difference != [flows.Directions]int64{} {
				t.Errorf("status: got %v round us and %v different, want %v and none", i.Bypassed, i.Difference, want)
			}
		})
	}
}

// What went round while the interface was not metered is part of the gap, and what
// was published before is not again.
func TestBypassedInAGap(t *testing.T) {
	t.Parallel()
	requireCountedRedirects(t)
	for _, existing := range []bool{false, true} {
		t.Run(fmt.Sprint("existing ", existing), func(t *testing.T) {
			t.Parallel()
			host := ktest.NewNamespace(t)
			start := func() *testMeter {
				return startMeter(t, host, func(o *Options) { o.Interfaces = []string{"veth*"} })
			}
			var m *testMeter
			if !existing {
				m = start()
				ktest.Await(t, "a drain", func() bool { return m.LastDrain().Count > 0 })
			}
			w := wireFrom(t, host, ktest.PodOptions{})
			d := newDetour(t, w)
			d.send(t)
			w.exchange(t, 5, 5)
			round := w.surplus(t)
			var unpublished byDirection
			if existing {
				m = start()
				m.awaitState(t, "veth0", StateAttached)
				unpublished = before(m, "veth0").add(round)
			}
			d.send(t)
			m.awaitState(t, "veth0", StateBypassed)
			w.rename(t, "other")
			ktest.Await(t, "veth0 has been left", func() bool { return m.state("veth0") == "" && m.state("other") == "" })
			w.exchange(t, 20, 30)
			d.send(t)
			w.settled(t)
			w.rename(t, "veth0")
			m.awaitState(t, "veth0", StateBypassed)
			d.send(t)
			w.exchange(t, 20, 30)
			ktest.Await(t, "all that the pod's end counted is published", func() bool {
				return m.published("veth0", "other") == w.podSide(t).sub(unpublished)
			})
		})
	}
}
