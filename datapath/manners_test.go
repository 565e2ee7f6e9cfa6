// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"slices"
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
	keepsClsact   bool // what comes later needs it
}

func strangers(t testing.TB) []stranger {
	all := []stranger{
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
	}
	if haveU32(t) {
		all = append(all, stranger{
			name: "u32 filters, before and after",
			before: func(t testing.TB, w *wire) {
				w.addClsact(t)
				w.add(t, u32Filter(hookIngress, 1, unix.ETH_P_IP))
				w.add(t, u32Filter(hookIngress, 2, unix.ETH_P_ALL))
				w.add(t, u32Filter(hookEgress, 1, unix.ETH_P_ALL))
			},
			after: func(t testing.TB, w *wire) { w.add(t, u32Filter(hookEgress, 50, unix.ETH_P_IP)) },
		})
	}
	if ktest.HaveTCX(t) {
		all = append(all, stranger{
			name: "TCX programs before and after us",
			before: func(t testing.TB, w *wire) {
				w.addTCX(t, link.Head())
				w.addTCX(t, link.Tail())
			},
			after: func(t testing.TB, w *wire) {
				w.addTCX(t, link.Head())
				w.addTCX(t, link.Tail())
			},
		})
	}
	return all
}

// Whatever others have on an interface is as it was, byte for byte, while podmeter
// is attached, adopted with new programs after peace and after a kill, and
// uninstalled; and every packet is counted.
func TestStrangersAreLeftAlone(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			testStrangers(t, mode, strangers(t))
		})
	}
}

// testStrangers gives each stranger an interface of one host.
func testStrangers(t *testing.T, mode AttachMode, all []stranger) {
	host := ktest.NewNamespace(t)
	o := testOptions(t, host, nil)
	o.Attach = mode
	cleanPins(t, o)
	wires := make([]*wire, len(all))
	for i, s := range all {
		w := newPod(t, host, fmt.Sprint("veth", i), fmt.Sprint("198.51.100.", i+2))
		w.handle = filterHandle(o.PinPath)
		t.Logf("%s, %d: %s", w.name, w.index, s.name)
		if s.before != nil {
			s.before(t, w)
		}
		all[i].keepsClsact = s.keepsClsact || w.clsactThere(t)
		wires[i] = w
	}
	foreign := takeInventory(t, host, o.PinPath).foreign
	check := func(when string) {
		t.Helper()
		compareLists(t, when, takeInventory(t, host, o.PinPath).foreign, foreign)
	}
	a := newArchive()
	l := a.start(t, o)
	ktest.Await(t, "all are attached", l.settled(len(all)))
	check("attached")
	for i, s := range all {
		if s.after != nil {
			s.after(t, wires[i])
		}
	}
	foreign = takeInventory(t, host, o.PinPath).foreign
	unpublished := l.before()
	l = a.restarts(t, o, l, wires, check)
	for _, w := range wires {
		a.awaitTotals(t, w.name, byDirection(w.settled(t)).sub(unpublished[w.name]))
	}
	l.stop(t)
	uninstall(t, host, o.PinPath)
	clsacts := 0
	for i, w := range wires {
		if got := w.clsactThere(t); got != all[i].keepsClsact {
			t.Errorf("%s: uninstalled: got a clsact %t, want %t", w.name, got, all[i].keepsClsact)
		}
		if all[i].keepsClsact {
			clsacts++
		}
	}
	ktest.Await(t, "nothing of ours", func() bool { // the kernel ends a TCX link a moment after its last user
		return len(takeInventory(t, host, o.PinPath).all) == len(foreign)+clsacts
	})
	check("uninstalled")
}

// restarts ends a meter in peace and by a kill, with packets before and between,
// and returns the last one.
func (a *archive) restarts(t *testing.T, o Options, l *life, wires []*wire, check func(when string)) *life {
	t.Helper()
	talk := func() {
		for _, w := range wires {
			w.talk(t)
		}
	}
	for _, end := range []struct {
		name string
		life func(*life, *testing.T)
	}{{"stopped", (*life).stop}, {"killed", (*life).kill}} {
		talk()
		ktest.Await(t, "a checkpoint", a.hasSaved)
		end.life(l, t)
		check(end.name)
		talk()
		l = a.start(t, o)
		if resumed, why := l.Resumed(); !resumed {
			t.Fatalf("%s: not resumed: %v", end.name, why)
		}
		ktest.Await(t, "all are attached", l.settled(len(wires)))
		check("started after it was " + end.name)
	}
	talk()
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
	ktest.Await(t, "all is published", func() bool {
		totals, s := a.of(name)
		got, seeded = totals.add(s), s
		return got == want
	})
	if a.failed != 0 || a.residue != 0 {
		t.Errorf("got a conservation error of %d and a residue of %d, want none", a.failed, a.residue)
	}
}

// settled is a condition: there are so many interfaces, whose ledgers have settled.
func (l *life) settled(want int) func() bool {
	return func() bool {
		all := l.Interfaces()
		return len(all) == want && !slices.ContainsFunc(all, func(i InterfaceStatus) bool {
			return i.State == StateSettling || i.State == StateGone
		})
	}
}

// before is what passed before the attachment, by name.
func (l *life) before() map[string]byDirection {
	before := make(map[string]byDirection)
	for _, i := range l.Interfaces() {
		before[i.Name] = i.Before
	}
	return before
}

// newQuietWire makes a wire on which nothing is sent but by the test.
func newQuietWire(t testing.TB) *wire {
	t.Helper()
	return wireFrom(t, ktest.NewNode(t), ktest.PodOptions{Introduced: true})
}

// talk sends packets both ways.
func (w *wire) talk(t testing.TB) {
	t.Helper()
	w.pod.Send(t, "198.51.100.1:9", 100, 30)
	w.host.Send(t, w.address+":9", 100, 30)
}

func compareLists(t testing.TB, when string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: what others have is not what it was (-want +got):\n%s", when, diff)
	}
}
