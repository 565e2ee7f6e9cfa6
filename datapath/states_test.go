// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

// publishedOf is all that an archive's meters published of veth0.
func (a *archive) publishedOf(name string) byDirection {
	totals, seeded := a.of(name)
	return totals.add(seeded)
}

func (l *life) state(name string) State {
	for _, i := range l.Interfaces() {
		if i.Name == name {
			return i.State
		}
	}
	return ""
}

// An agent that ends while packets are hidden and redirected goes on where it was:
// also with what came while none ran, and by whichever end.
func TestRestartWhileShadowedAndBypassed(t *testing.T) {
	t.Parallel()
	requireMode(t, AttachTCX)
	requireCountedRedirects(t)
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprint("killed ", killed), func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			d := newDetour(t, w)
			a := newArchive()
			o := testOptions(t, w.host, nil)
			o.Interfaces = []string{"veth0"}
			cleanPins(t, o)
			d.send(t)
			w.exchange(t, 3, 4)
			round := w.surplus(t)
			l := a.start(t, o)
			ktest.Await(t, "veth0 is attached", l.attached(1))
			unpublished := byDirection(l.Interfaces()[0].Before).add(round)
			remove := w.foreignTCX(t, flows.Transmit, link.Head(), 0)
			w.exchange(t, 20, 30)
			d.send(t)
			ktest.Await(t, "veth0 is shadowed", func() bool { return l.state("veth0") == StateShadowed })
			w.exchange(t, 20, 30)
			d.send(t)
			if killed {
				l.kill(t)
			} else {
				l.stop(t)
			}
			w.exchange(t, 40, 50)
			d.send(t)
			l = a.start(t, o)
			if resumed, why := l.Resumed(); !resumed {
				t.Fatalf("not resumed: %v", why)
			}
			ktest.Await(t, "veth0 is shadowed again", func() bool { return l.state("veth0") == StateShadowed })
			w.exchange(t, 5, 6)
			remove()
			w.exchange(t, 7, 8)
			d.send(t)
			ktest.Await(t, "veth0 is bypassed alone", func() bool { return l.state("veth0") == StateBypassed })
			ktest.Await(t, "all has been published", func() bool {
				return a.publishedOf("veth0") == w.podSide(t).sub(unpublished)
			})
			l.stop(t)
			if a.failed != 0 {
				t.Errorf("conservation error: got %d, want 0", a.failed)
			}
		})
	}
}

// Who came and went again while no agent ran leaves a difference, as nobody saw him;
// a checkpoint of before these states is taken as one without them.
func TestResumeFromOlderState(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	a, o, l, unpublished := install(t, w, nil)
	w.exchange(t, 20, 30)
	l.stop(t)
	a.saved.Past = nil
	for i := range a.saved.Attachments {
		s := &a.saved.Attachments[i]
		s.Hidden, s.Apart, s.Shadowed = byDirection{}, byDirection{}, [flows.Directions]bool{}
		s.BypassBase, s.Bypassed, s.BypassKnown = flows.Counters{}, flows.Counters{}, false
	}
	w.exchange(t, 5, 6)
	l = a.start(t, o)
	if resumed, why := l.Resumed(); !resumed {
		t.Fatalf("not resumed: %v", why)
	}
	ktest.Await(t, "veth0 is attached", l.attached(1))
	w.exchange(t, 7, 8)
	want := w.ended(t).sub(unpublished)
	l.stop(t)
	if got := a.publishedOf("veth0"); !w.agree(t, got, want) {
		t.Errorf("got %v, want the interface's %v", got, want)
	}
}

// A foreign program before us that lets everything pass hides nothing, and one that
// came earlier is behind us: the interface stays attached.
func TestForeignProgramThatHidesNothing(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	hasTCX := ktest.HaveTCX(t)
	if hasTCX {
		w.foreignTCX(t, flows.Transmit, link.Head(), 0) // we attach before it
	}
	m := startMeter(t, w.host, nil)
	m.awaitState(t, "veth0", StateAttached)
	unpublished := before(m, "veth0")
	harmless, runs := foreign(t)
	if hasTCX {
		err := w.host.Do(func() error {
			l, err := link.AttachTCX(link.TCXOptions{
				Interface: w.index, Program: harmless, Attach: tcxAttachType(flows.Transmit), Anchor: link.Head(),
			})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		})
		if err != nil {
			t.Fatalf("attach foreign TCX program: %v", err)
		}
	} else {
		w.addFilter(t, flows.Transmit, 1, unix.ETH_P_ALL, harmless)
	}
	stop := trickle(t, w.pod)
	defer stop()
	for range 3 {
		last := m.lastCompared()
		ktest.Await(t, "a comparison", func() bool { return m.lastCompared() != last })
		if got := m.state("veth0"); got != StateAttached {
			t.Errorf("got %q, want %q", got, StateAttached)
		}
	}
	stop()
	want := w.ended(t).sub(unpublished)
	m.stop()
	if _, seeded := m.book.of("veth0"); runs() == 0 || seeded != (byDirection{}) || !w.agree(t, m.published("veth0"), want) {
		t.Errorf("got %v, %v of it seeded, want %v and none", m.published("veth0"), seeded, want)
	}
}

func (m *testMeter) lastCompared() time.Time {
	m.gate <- struct{}{}
	defer func() { <-m.gate }()
	return m.compared
}

// Of packets that flow without a pause only some are hidden: in the end each is
// published once, by the one way or the other.
func TestShadowedInPart(t *testing.T) {
	t.Parallel()
	for _, existing := range []bool{false, true} {
		t.Run(fmt.Sprint("existing ", existing), func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			if !existing {
				w.host.DeleteLink(t, "veth0")
			}
			m := startMeter(t, w.host, func(o *Options) { o.Attach = AttachNetlink })
			ktest.Await(t, "a drain", func() bool { return m.LastDrain().Count > 0 })
			if !existing {
				w.index = w.host.Veth(t, "veth0", w.pod, "eth0")
				w.host.Address(t, "veth0", "198.51.100.1/24")
				w.pod.Address(t, "eth0", "198.51.100.2/24")
			}
			m.awaitState(t, "veth0", StateAttached)
			var unpublished byDirection
			if existing {
				unpublished = before(m, "veth0")
			}
			remove := w.foreignFilter(t, flows.Transmit, 1, unix.ETH_P_ALL, 1007)
			stop := trickle(t, w.pod) // to 500 ports in turn
			defer stop()
			m.awaitState(t, "veth0", StateShadowed)
			remove()
			m.awaitState(t, "veth0", StateAttached)
			stop()
			m.awaitPublished(t, w, unpublished)
			if i := m.status("veth0"); i.Hidden[flows.Transmit].Packets == 0 || i.Hidden[flows.Receive] != (flows.Counters{}) {
				t.Errorf("hidden: got %v, want some transmitted", i.Hidden)
			}
		})
	}
}

// All that flows is hidden from the attachment on, so that what passed before never
// comes to rest: it settles all the same.
func TestShadowedFromTheStart(t *testing.T) {
	t.Parallel()
	for _, existing := range []bool{false, true} {
		t.Run(fmt.Sprint("existing ", existing), func(t *testing.T) {
			t.Parallel()
			var hold sync.Mutex // while it is held nothing is attached
			host := ktest.NewNamespace(t)
			start := func() *testMeter {
				return startMeter(t, host, func(o *Options) {
					o.Attach = AttachNetlink
					o.within = func(f func() error) error {
						hold.Lock()
						defer hold.Unlock()
						return host.Do(f)
					}
				})
			}
			var m *testMeter
			if !existing {
				m = start()
				ktest.Await(t, "a drain", func() bool { return m.LastDrain().Count > 0 })
				hold.Lock()
			}
			w := wireFrom(t, host, ktest.PodOptions{})
			remove := w.foreignFilter(t, flows.Transmit, 1, unix.ETH_P_IP, 0) // we get another priority
			stop := trickle(t, w.pod)
			defer stop()
			ktest.Await(t, "traffic", func() bool { return w.counters(t)[flows.Transmit].Packets > 100 })
			if existing {
				m = start()
			} else {
				hold.Unlock()
			}
			m.awaitState(t, "veth0", StateShadowed)
			var unpublished byDirection
			if existing {
				unpublished = before(m, "veth0")
			}
			if who := m.status("veth0").Ahead[flows.Transmit]; len(who) != 1 {
				t.Errorf("before us: got %q, want one filter", who)
			}
			stop()
			m.awaitPublished(t, w, unpublished)
			remove()
			m.awaitState(t, "veth0", StateAttached)
			w.exchange(t, 10, 10)
			m.awaitPublished(t, w, unpublished)
		})
	}
}
