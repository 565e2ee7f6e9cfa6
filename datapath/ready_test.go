// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// podList plays the pods that have an address in their status.
type podList struct {
	mu    sync.Mutex
	pods  []netip.Addr
	asked int
	saw   []netip.Addr // the addresses of the last question
}

func (p *podList) ready(i flows.Interface) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	p.saw = i.Addresses
	return slices.ContainsFunc(i.Addresses, func(a netip.Addr) bool { return slices.Contains(p.pods, a) })
}

func (p *podList) add(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pods = append(p.pods, netip.MustParseAddr(address))
}

func (p *podList) times() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// newPod makes another pod's veth, its address routed as most CNI plugins do.
func newPod(t testing.TB, host *ktest.Namespace, name, address string) *wire {
	t.Helper()
	w := wireFrom(t, host, ktest.PodOptions{Device: name, Gateway: "198.51.100.1/32", Address: address + "/24", Introduced: true})
	routeTo(t, host, w.index, address)
	return w
}

// A link that appears is left alone until its pod has its address, and what passed
// until then is seeded.
func TestWaitsUntilThePodIsReady(t *testing.T) {
	t.Parallel()
	old := newQuietWire(t)
	list := &podList{}
	m := startMeter(t, old.host, func(o *Options) { o.Attach, o.Ready = AttachNetlink, list.ready })
	m.awaitState(t, "veth0", StateAttached) // it was there: nobody is asked
	if got := list.times(); got != 0 {
		t.Errorf("of what was there: asked %d times, want never", got)
	}
	w := newPod(t, old.host, "veth1", "198.51.100.7")
	w.pod.Send(t, "198.51.100.1:9", 100, 25)
	ktest.Await(t, "the pod is asked for again and again", func() bool { return list.times() > 4 })
	if got := m.state("veth1"); got != "" || w.clsactThere(t) {
		t.Errorf("not ready: got state %q, clsact %t, want it untouched", got, w.clsactThere(t))
	}
	if want := []netip.Addr{netip.MustParseAddr("198.51.100.7")}; !slices.Equal(list.saw, want) {
		t.Errorf("asked with %v, want %v", list.saw, want)
	}
	list.add("198.51.100.7")
	m.awaitState(t, "veth1", StateAttached)
	w.pod.Send(t, "198.51.100.1:9", 100, 5)
	want := byDirection(w.settled(t))
	m.stop()
	totals, seeded := m.book.of("veth1")
	if totals.add(seeded) != want || seeded[flows.Transmit].Packets < 25 {
		t.Errorf("got %v, %v of it seeded, want %v", totals.add(seeded), seeded, want)
	}
}

// A link that never becomes ready is attached at last; one that lost its programs
// had its time already, and with TCX there is nothing to wait for.
func TestWaitsNoLongerThanItMust(t *testing.T) {
	t.Parallel()
	t.Run("never ready", func(t *testing.T) {
		t.Parallel()
		host, list := ktest.NewNamespace(t), &podList{}
		m := startMeter(t, host, func(o *Options) {
			o.Attach, o.Ready, o.readyWait = AttachNetlink, list.ready, 200*time.Millisecond
		})
		ktest.Await(t, "first listing", func() bool { return m.LastDrain().Count > 0 })
		w := newPod(t, host, "veth1", "198.51.100.7")
		m.awaitState(t, "veth1", StateAttached)
		asked := list.times()
		if asked == 0 {
			t.Error("nobody was asked")
		}
		first := m.Interfaces()[0].Since
		w.deleteClsact(t)
		w.nudge(t)
		ktest.Await(t, "it is attached again", func() bool {
			all := m.Interfaces()
			return len(all) == 1 && all[0].State == StateAttached && all[0].Since != first
		})
		if got := list.times(); got != asked {
			t.Errorf("attached again: asked %d times more, want none", got-asked)
		}
	})
	t.Run("tcx", func(t *testing.T) {
		t.Parallel()
		ktest.RequireTCX(t)
		host, list := ktest.NewNamespace(t), &podList{}
		m := startMeter(t, host, func(o *Options) { o.Ready = list.ready })
		ktest.Await(t, "first listing", func() bool { return m.LastDrain().Count > 0 })
		newPod(t, host, "veth1", "198.51.100.7")
		m.awaitState(t, "veth1", StateAttached)
		if got := list.times(); got != 0 {
			t.Errorf("asked %d times, want never", got)
		}
	})
}

// Links that go while they wait are forgotten, and the next one with the ifindex
// waits anew.
func TestWaitingEndsWithTheLink(t *testing.T) {
	t.Parallel()
	host, list := ktest.NewNamespace(t), &podList{}
	m := startMeter(t, host, func(o *Options) { o.Attach, o.Ready = AttachNetlink, list.ready })
	ktest.Await(t, "first listing", func() bool { return m.LastDrain().Count > 0 })
	w := newPod(t, host, "veth1", "198.51.100.7")
	ktest.Await(t, "a question", func() bool { return list.times() > 0 })
	host.DeleteLink(t, "veth1")
	ktest.Await(t, "no question any more", func() bool {
		before, drains := list.times(), m.LastDrain().Count
		ktest.Await(t, "some drains", func() bool { return m.LastDrain().Count > drains+3 })
		return list.times() == before
	})
	host.VethAt(t, w.index, "veth2", ktest.NewNamespace(t), "eth0")
	asked := list.times()
	ktest.Await(t, "a question about the next", func() bool { return list.times() > asked })
	if got := m.state("veth2"); got != "" {
		t.Errorf("the next: got state %q, want it to wait", got)
	}
}

// The end of a waiting link is seen without its event, which may be lost.
func TestListingForgetsWhoNoLongerWaits(t *testing.T) {
	w := &linkWatcher{Meter: &Meter{attachments: newRegistry()}, waiting: map[uint32]*waiting{7: {}}}
	w.askReady(nil)
	if len(w.waiting) != 0 {
		t.Errorf("got %d waiting, want none", len(w.waiting))
	}
}
