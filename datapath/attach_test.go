// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wire is a host and a pod namespace joined by a veth. IPv6 is off: its
// discovery speaks whenever it likes.
type wire struct {
	host, pod *ktest.Namespace
	index     int
	name      string // of the host's end
	address   string // of the pod's end
	handle    uint32 // of the filters of the meter that is tested
}

func newWire(t testing.TB) *wire {
	t.Helper()
	return wireFrom(t, ktest.NewNode(t), ktest.PodOptions{})
}

// wireFrom joins a pod to a host that is there.
func wireFrom(t testing.TB, host *ktest.Namespace, o ktest.PodOptions) *wire {
	t.Helper()
	p := host.Pod(t, o)
	return &wire{host: host, pod: p.Namespace, index: p.Index, name: p.Device, address: p.IP}
}

// beside is another pod on the host of a wire. Its end there has the ifindex that is
// asked for, any if 0.
func beside(device string, index int) ktest.PodOptions {
	return ktest.PodOptions{Device: device, Index: index, Gateway: "203.0.113.1/24", Address: "203.0.113.2/24"}
}

// counters are the interface's own, by direction as the pod sees it.
func (w *wire) counters(t testing.TB) [flows.Directions]flows.Counters {
	t.Helper()
	var c [flows.Directions]flows.Counters
	err := w.host.Do(func() error {
		l, err := netlink.LinkByIndex(w.index)
		if err != nil {
			return err
		}
		s := l.Attrs().Statistics
		c[flows.Transmit] = flows.Counters{Bytes: s.RxBytes, Packets: s.RxPackets}
		c[flows.Receive] = flows.Counters{Bytes: s.TxBytes, Packets: s.TxPackets}
		return nil
	})
	if err != nil {
		t.Fatalf("read counters: %v", err)
	}
	return c
}

// settled waits until the interface's counters rest, and what they count has been handled.
func (w *wire) settled(t testing.TB) [flows.Directions]flows.Counters {
	t.Helper()
	last := w.counters(t)
	var backlogs ktest.Backlogs
	ktest.AwaitWithin(t, ktest.Patience, "the interface's counters come to rest", func() string {
		time.Sleep(50 * time.Millisecond) // the time over which they must not move
		now := w.counters(t)
		if now != last {
			backlogs.Forget()
		}
		if handled := backlogs.Handled(t); now == last && handled {
			return ""
		}
		last = now
		return fmt.Sprintf("they are %v", now)
	})
	return last
}

// ended takes the host's end down, so that not even neighbour discovery sends
// anything more, and returns the interface's last counters. Before, it waits for answers:
// one that is on its way out when the link goes down is dropped behind the program, and
// no counter tells of it.
func (w *wire) ended(t testing.TB) byDirection {
	t.Helper()
	w.settled(t)
	err := w.host.Do(func() error {
		l, err := netlink.LinkByIndex(w.index)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	})
	if err != nil {
		t.Fatalf("take veth down: %v", err)
	}
	return w.settled(t)
}

// agree says whether got is what the interface counted. What is dropped behind the
// program, as a slow machine's backlog is full or the link goes down, was handed to the
// interface, which does not count it; only the number of all such packets is known.
func (w *wire) agree(t testing.TB, got, counted byDirection) bool {
	t.Helper()
	const frame = 1514
	over := got[flows.Receive].Packets - counted[flows.Receive].Packets
	if over > 0 && over <= w.dropped(t) && got[flows.Receive].Bytes-counted[flows.Receive].Bytes <= over*frame {
		counted[flows.Receive] = got[flows.Receive]
	}
	return got == counted
}

// dropped is what the host's end and its root qdisc dropped of what was sent to
// the pod.
func (w *wire) dropped(t testing.TB) (dropped uint64) {
	t.Helper()
	err := w.host.Do(func() error {
		l, err := netlink.LinkByIndex(w.index)
		if err != nil {
			return err
		}
		qdiscs, err := netlink.QdiscList(l)
		for _, q := range qdiscs {
			if s := q.Attrs().Statistics; q.Attrs().Parent == netlink.HANDLE_ROOT && s != nil && s.Queue != nil {
				dropped += uint64(s.Queue.Drops)
			}
		}
		dropped += l.Attrs().Statistics.TxDropped
		return err
	})
	if err != nil {
		t.Fatalf("read drops: %v", err)
	}
	return dropped
}

// metered returns what both sets hold of a point.
func metered(t testing.TB, d *drainer, index int) [flows.Directions]flows.Counters {
	t.Helper()
	var c [flows.Directions]flows.Counters
	for direction := range uint32(flows.Directions) {
		for _, s := range d.sets {
			total, err := s.readTotal(bpf.MeterTotalKey{Point: uint32(index), Direction: direction})
			if err != nil {
				t.Fatalf("read total: %v", err)
			}
			c[direction].Add(flows.Counters{Bytes: total.Bytes, Packets: total.Packets})
		}
	}
	return c
}

func attachTo(t testing.TB, w *wire, a *attacher) hooks {
	t.Helper()
	var h hooks
	err := w.host.Do(func() (err error) {
		h, _, err = a.attach(w.index, false)
		return err
	})
	if err != nil {
		t.Fatalf("attach: %v", err)
	}
	return h
}

// requireMode skips the test where the kernel cannot attach so.
func requireMode(t testing.TB, mode AttachMode) {
	t.Helper()
	if mode == AttachTCX {
		ktest.RequireTCX(t)
	}
}

func TestAttachCountsWhatTheInterfaceCounts(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			d, objects := newTestDrainer(t, 4096)
			w := newWire(t)
			if err := d.createPoint(uint32(w.index)); err != nil {
				t.Fatal(err)
			}
			before := w.settled(t)
			h := attachTo(t, w, newAttacher(mode, &objects.MeterObjects, testPins(t)))
			w.host.Send(t, "198.51.100.2:9", 100, 50)
			w.pod.Send(t, "198.51.100.1:9", 100, 70)
			after := w.settled(t)
			got := metered(t, d, w.index)
			for direction := range flows.Direction(flows.Directions) {
				want := after[direction].Sub(before[direction])
				if got[direction] != want || want.Packets < 50 {
					t.Errorf("%s: got %+v, want the interface's own %+v", direction, got[direction], want)
				}
			}
			if err := w.host.Do(h.detach); err != nil {
				t.Fatalf("detach: %v", err)
			}
			w.host.Send(t, "198.51.100.2:9", 100, 5)
			w.settled(t)
			if now := metered(t, d, w.index); now != got {
				t.Errorf("after detach: got %+v, want %+v as before", now, got)
			}
		})
	}
}

// foreign is somebody else's program, which counts its runs in a map and lets
// every packet pass on.
func foreign(t testing.TB) (*ebpf.Program, func() uint64) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatalf("create map: %v", err)
	}
	t.Cleanup(func() { m.Close() })
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMapValue(asm.R1, m.FD(), 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, -1), // TC_ACT_UNSPEC
		asm.Return(),
	}})
	if err != nil {
		t.Fatalf("load program: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	return program, func() uint64 {
		var runs uint64
		if err := m.Lookup(uint32(0), &runs); err != nil {
			t.Fatalf("look up runs: %v", err)
		}
		return runs
	}
}

// Others on the same veth keep running with podmeter attached and after it left.
func TestForeignProgramsStay(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			d, objects := newTestDrainer(t, 4096)
			w := newWire(t)
			if err := d.createPoint(uint32(w.index)); err != nil {
				t.Fatal(err)
			}
			program, runs := foreign(t)
			filter, filterRuns := foreign(t)
			hasTCX := ktest.HaveTCX(t)
			if hasTCX {
				attachForeignTCX(t, w, program)
			}
			attachForeignFilter(t, w, filter)
			h := attachTo(t, w, newAttacher(mode, &objects.MeterObjects, testPins(t)))
			check := func(when string) {
				t.Helper()
				tcx, cls := runs(), filterRuns()
				w.pod.Send(t, "198.51.100.1:9", 100, 20)
				w.settled(t)
				if got := runs() - tcx; got < 20 && hasTCX {
					t.Errorf("%s: foreign TCX program ran %d times, want at least 20", when, got)
				}
				if got := filterRuns() - cls; got < 20 {
					t.Errorf("%s: foreign filter ran %d times, want at least 20", when, got)
				}
			}
			check("attached")
			if got := metered(t, d, w.index)[flows.Transmit].Packets; got < 20 {
				t.Errorf("podmeter counted %d packets, want at least 20", got)
			}
			if err := w.host.Do(h.detach); err != nil {
				t.Fatalf("detach: %v", err)
			}
			check("after it left")
		})
	}
}

func attachForeignTCX(t testing.TB, w *wire, program *ebpf.Program) {
	t.Helper()
	err := w.host.Do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{
			Interface: w.index, Program: program, Attach: ebpf.AttachTCXIngress,
		})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatalf("attach foreign TCX program: %v", err)
	}
}

func attachForeignFilter(t testing.TB, w *wire, program *ebpf.Program) {
	t.Helper()
	err := w.host.Do(func() error {
		if err := netlink.QdiscAdd(clsact(w.index)); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: w.index, Parent: netlink.HANDLE_MIN_INGRESS,
				Handle: 1, Protocol: unix.ETH_P_IP, Priority: 1},
			Fd: program.FD(), Name: "foreign", DirectAction: true,
		})
	})
	if err != nil {
		t.Fatalf("attach foreign filter: %v", err)
	}
}
