// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// stranger is something of somebody else's on an interface.
type stranger struct {
	name string
	// before is put there before podmeter comes, after when it is attached.
	before, after func(testing.TB, *wire)
	tcx           bool // needs a kernel with TCX
	keepsClsact   bool // what comes later needs it
}

func strangers() []stranger {
	return []stranger{
		{name: "nothing"},
		{name: "an empty clsact", before: func(t testing.TB, w *wire) { w.addClsact(t) }},
		{
			name: "bpf filters of several priorities and protocols, before and after",
			before: func(t testing.TB, w *wire) {
				w.addClsact(t)
				w.add(t, bpfFilter(t, hookIngress, 1, unix.ETH_P_ALL, 1, "first"))
				w.add(t, bpfFilter(t, hookIngress, 1, unix.ETH_P_ALL, 2, "second"))
				w.add(t, bpfFilter(t, hookIngress, 5, unix.ETH_P_IP, 1, "third"))
				w.add(t, bpfFilter(t, hookEgress, 1, unix.ETH_P_IPV6, 1, "fourth"))
				w.add(t, bpfFilter(t, hookEgress, 2, unix.ETH_P_IP, 1, "fifth"))
			},
			after: func(t testing.TB, w *wire) {
				w.add(t, bpfFilter(t, hookIngress, 5, unix.ETH_P_IP, 9, "sixth"))
				w.add(t, bpfFilter(t, hookEgress, 40, unix.ETH_P_ALL, 9, "seventh"))
			},
		},
		{
			name: "u32 filters, before and after",
			before: func(t testing.TB, w *wire) {
				w.addClsact(t)
				w.add(t, u32Filter(hookIngress, 1, unix.ETH_P_IP))
				w.add(t, u32Filter(hookIngress, 2, unix.ETH_P_ALL))
				w.add(t, u32Filter(hookEgress, 1, unix.ETH_P_ALL))
			},
			after: func(t testing.TB, w *wire) { w.add(t, u32Filter(hookEgress, 50, unix.ETH_P_IP)) },
		},
		{
			name: "a filter in a clsact that podmeter made, if it did",
			after: func(t testing.TB, w *wire) {
				if !w.clsactThere(t) {
					w.addClsact(t)
				}
				w.add(t, bpfFilter(t, hookEgress, 9, unix.ETH_P_IP, 1, "late"))
			},
			keepsClsact: true,
		},
		{
			name: "almost ours: the name with another handle, the handle with another name",
			before: func(t testing.TB, w *wire) {
				w.addClsact(t)
				for _, parent := range []uint32{hookIngress, hookEgress} {
					w.add(t, bpfFilter(t, parent, 1, unix.ETH_P_ALL, w.handle, "foreign"))
					w.add(t, bpfFilter(t, parent, 1, unix.ETH_P_ALL, w.handle+1, "podmeter_transmit"))
					w.add(t, bpfFilter(t, parent, 2, unix.ETH_P_IP, w.handle, "meter"))
				}
			},
		},
		{name: "an empty ingress qdisc", before: func(t testing.TB, w *wire) { w.add(t, ingressQdisc()) }},
		{
			name: "an ingress qdisc with filters",
			before: func(t testing.TB, w *wire) {
				w.add(t, ingressQdisc())
				w.add(t, bpfFilter(t, netlink.MakeHandle(0xffff, 0), 1, unix.ETH_P_ALL, 1, "first"))
				w.add(t, bpfFilter(t, netlink.MakeHandle(0xffff, 0), 3, unix.ETH_P_IP, 1, "second"))
			},
		},
		{name: "a root qdisc that shapes", before: func(t testing.TB, w *wire) { w.add(t, tbf()) }},
		{name: "a root qdisc that comes later", after: func(t testing.TB, w *wire) { w.add(t, tbf()) }},
		{
			name: "TCX programs before and after us", tcx: true,
			before: func(t testing.TB, w *wire) {
				w.addTCX(t, link.Head())
				w.addTCX(t, link.Tail())
			},
			after: func(t testing.TB, w *wire) {
				w.addTCX(t, link.Head())
				w.addTCX(t, link.Tail())
			},
		},
	}
}

// Whatever others have on an interface is as it was, byte for byte, while podmeter
// is attached, adopted with new programs after peace and after a kill, and
// uninstalled; and every packet is counted.
func TestStrangersAreLeftAlone(t *testing.T) {
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		for _, s := range strangers() {
			t.Run(string(mode)+"/"+s.name, func(t *testing.T) {
				requireMode(t, mode)
				if s.tcx {
					ktest.RequireTCX(t)
				}
				testStranger(t, mode, s)
			})
		}
	}
}

func testStranger(t *testing.T, mode AttachMode, s stranger) {
	w := newQuietWire(t)
	o := testOptions(t, w.host, nil)
	o.Attach, o.MapMemory = mode, 1 // as small as can be
	cleanPins(t, o)
	w.handle = filterHandle(o.PinPath)
	if s.before != nil {
		s.before(t, w)
	}
	start, keepsClsact := takeInventory(t, w.host, o.PinPath), s.keepsClsact || w.clsactThere(t)
	a := newArchive()
	l := a.start(t, o)
	await(t, "veth0 is attached", l.settled)
	compareLists(t, "attached", takeInventory(t, w.host, o.PinPath).foreign, start.foreign)
	if s.after != nil {
		s.after(t, w)
		start.foreign = takeInventory(t, w.host, o.PinPath).foreign
	}
	first := byDirection(l.Interfaces()[0].Before)
	l = a.restarts(t, o, l, w, func(when string) {
		compareLists(t, when, takeInventory(t, w.host, o.PinPath).foreign, start.foreign)
	})
	want := byDirection(w.settled(t)).sub(first)
	a.awaitTotals(t, "veth0", want)
	l.stop(t)
	uninstall(t, w.host, o.PinPath)
	end := takeInventory(t, w.host, o.PinPath)
	compareLists(t, "uninstalled", end.foreign, start.foreign)
	if got := w.clsactThere(t); got != keepsClsact {
		t.Errorf("uninstalled: got a clsact %t, want %t", got, keepsClsact)
	}
	if s.after == nil {
		await(t, "nothing of ours", func() bool { // the kernel ends a TCX link a moment after its last user
			end = takeInventory(t, w.host, o.PinPath)
			return len(end.all) == len(start.all)
		})
		compareLists(t, "uninstalled, in all", end.all, start.all)
	}
}

// restarts ends a meter in peace and by a kill, with packets before and between,
// and returns the last one.
func (a *archive) restarts(t *testing.T, o Options, l *life, w *wire, check func(when string)) *life {
	t.Helper()
	for _, end := range []struct {
		name string
		life func(*life, *testing.T)
	}{{"stopped", (*life).stop}, {"killed", (*life).kill}} {
		w.talk(t)
		end.life(l, t)
		check(end.name)
		w.talk(t)
		l = a.start(t, o)
		if resumed, why := l.Resumed(); !resumed {
			t.Fatalf("%s: not resumed: %v", end.name, why)
		}
		await(t, "the interface is attached", l.settled)
		check("started after it was " + end.name)
	}
	w.talk(t)
	return l
}

// awaitTotals waits until all that an interface counted is published, no more and
// no less.
func (a *archive) awaitTotals(t testing.TB, name string, want byDirection) {
	t.Helper()
	if want[flows.Transmit].Packets < 100 || want[flows.Receive].Packets < 100 {
		t.Fatalf("the interface counted %v, want more than that", want)
	}
	var got, seeded byDirection
	defer func() {
		if t.Failed() {
			t.Logf("%s: got %v, %v of it seeded, want %v", name, got, seeded, want)
		}
	}()
	await(t, "all is published", func() bool {
		totals, s := a.of(name)
		got, seeded = totals.add(s), s
		return got == want
	})
	if a.failed != 0 || a.residue != 0 {
		t.Errorf("got a conservation error of %d and a residue of %d, want none", a.failed, a.residue)
	}
}

// settled is a condition: there is one interface and its ledger has settled.
func (l *life) settled() bool {
	all := l.Interfaces()
	return len(all) == 1 && all[0].State != StateSettling && all[0].State != StateGone
}

// newQuietWire makes a wire on which nothing is sent but by the test.
func newQuietWire(t testing.TB) *wire {
	t.Helper()
	w := newWire(t)
	w.host.Introduce(t, "veth0", "198.51.100.2", w.pod, "eth0")
	w.pod.Introduce(t, "eth0", "198.51.100.1", w.host, "veth0")
	return w
}

// talk sends packets both ways.
func (w *wire) talk(t testing.TB) {
	t.Helper()
	sendUDP(t, w.pod, "198.51.100.1:9", 30)
	sendUDP(t, w.host, "198.51.100.2:9", 30)
}

func compareLists(t testing.TB, when string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: what others have is not what it was (-want +got):\n%s", when, diff)
	}
}
