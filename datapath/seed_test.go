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
	"github.com/vishvananda/netlink"
)

// What was there at the start is counted from the attachment on; what comes
// later is counted whole, the part before its attachment from the ledger.
func TestMeterEqualsTheLedger(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			old := newWire(t)
			old.pod.Send(t, "198.51.100.1:9", 100, 11)
			m := startMeter(t, old.host, func(o *Options) { o.Attach = mode })
			m.awaitState(t, "veth0", StateAttached)
			before := before(m, "veth0")
			if got := before[flows.Transmit].Packets; got < 11 {
				t.Errorf("before the attachment: got %d packets, want at least 11", got)
			}

			young := wireFrom(t, old.host, beside("veth1", 0))
			m.awaitState(t, "veth1", StateAttached)
			for range 5 {
				old.pod.Send(t, "198.51.100.1:9", 100, 20)
				old.host.Send(t, "203.0.113.2:9", 100, 20)
			}
			wantOld, wantYoung := old.ended(t).sub(before), young.ended(t)
			m.stop()
			if totals, seeded := m.book.of("veth0"); totals != wantOld || seeded != (byDirection{}) {
				t.Errorf("veth0: got %v and %v seeded, want %v and none", totals, seeded, wantOld)
			}
			totals, seeded := m.book.of("veth1")
			for d := range totals {
				totals[d].Add(seeded[d])
			}
			if totals != wantYoung || wantYoung[flows.Receive].Packets < 100 {
				t.Errorf("veth1: got %v, %v of it seeded, want %v", totals, seeded, wantYoung)
			}
			if m.book.failed != 0 {
				t.Errorf("conservation error: got %d, want 0", m.book.failed)
			}
		})
	}
}

// A new interface that had traffic before it could be attached is seeded with it.
func TestSeedIsWhatPassedBeforeTheAttachment(t *testing.T) {
	t.Parallel()
	host := ktest.NewNamespace(t)
	var hold sync.Mutex // while it is held nothing is attached
	m := startMeter(t, host, func(o *Options) {
		o.within = func(f func() error) error {
			hold.Lock()
			defer hold.Unlock()
			return host.Do(f)
		}
	})
	ktest.Await(t, "first listing", func() bool { return m.LastDrain().Count > 0 })
	hold.Lock()
	w := wireFrom(t, host, ktest.PodOptions{Device: "veth1"})
	w.pod.Send(t, "198.51.100.1:9", 100, 25)
	w.settled(t)
	hold.Unlock()
	m.awaitState(t, "veth1", StateAttached)
	w.pod.Send(t, "198.51.100.1:9", 100, 5)
	want := w.ended(t)
	m.stop()
	totals, seeded := m.book.of("veth1")
	if seeded[flows.Transmit].Packets < 25 {
		t.Errorf("seeded: got %v, want at least the 25 packets before the attachment", seeded)
	}
	for d := range totals {
		totals[d].Add(seeded[d])
	}
	if totals != want {
		t.Errorf("got %v, want %v", totals, want)
	}
}

// A vanished interface's last packets are published, and its ifindex can come
// back as another's.
func TestIfindexComesBack(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	m := startMeter(t, w.host, nil)
	m.awaitState(t, "veth0", StateAttached)
	w.pod.Send(t, "198.51.100.1:9", 100, 30)
	counted := w.ended(t).sub(before(m, "veth0"))
	w.host.DeleteLink(t, "veth0")
	ktest.Await(t, "veth0 is forgotten", func() bool { return m.state("veth0") == "" })
	if totals, _ := m.book.of("veth0"); totals != counted {
		t.Errorf("veth0: got %v, want %v", totals, counted)
	}
	second := wireFrom(t, w.host, beside("veth1", w.index))
	m.awaitState(t, "veth1", StateAttached)
	second.pod.Send(t, "203.0.113.1:9", 100, 30)
	want := second.ended(t)
	m.stop()
	totals, seeded := m.book.of("veth1")
	for d := range totals {
		totals[d].Add(seeded[d])
	}
	if totals != want {
		t.Errorf("veth1: got %v, want %v", totals, want)
	}
	if m.book.failed != 0 {
		t.Errorf("conservation error: got %d, want 0", m.book.failed)
	}
}

func before(m *testMeter, name string) byDirection {
	for _, i := range m.Interfaces() {
		if i.Name == name {
			return i.Before
		}
	}
	return byDirection{}
}

// published is all that the meter published of names, its own counts and seeds.
func (m *testMeter) published(names ...string) (sum byDirection) {
	for _, name := range names {
		totals, seeded := m.book.of(name)
		sum = sum.add(totals).add(seeded)
	}
	return sum
}

// An interface that is renamed out of the globs and back has a gap, which is
// seeded; what was published before is not again.
func TestGapIsSeeded(t *testing.T) {
	t.Parallel()
	for _, existing := range []bool{false, true} {
		t.Run(fmt.Sprint("existing ", existing), func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			if !existing {
				w.host.DeleteLink(t, "veth0")
			}
			m := startMeter(t, w.host, func(o *Options) { o.Interfaces = []string{"veth*"} })
			ktest.Await(t, "a drain", func() bool { return m.LastDrain().Count > 0 })
			if !existing {
				w.index = w.host.Veth(t, "veth0", w.pod, "eth0")
				w.host.Address(t, "veth0", "198.51.100.1/24")
				w.pod.Address(t, "eth0", "198.51.100.2/24")
			}
			m.awaitState(t, "veth0", StateAttached)
			unpublished := byDirection{}
			if existing {
				unpublished = before(m, "veth0")
			}
			w.pod.Send(t, "198.51.100.1:9", 100, 100)
			w.settled(t) // see ended
			w.rename(t, "other")
			ktest.Await(t, "veth0 has been left", func() bool { return m.state("veth0") == "" && m.state("other") == "" })
			w.pod.Send(t, "198.51.100.1:9", 100, 30)
			w.settled(t)
			w.rename(t, "veth0")
			m.awaitState(t, "veth0", StateAttached)
			w.pod.Send(t, "198.51.100.1:9", 100, 10)
			want := w.ended(t).sub(unpublished)
			m.stop()
			if got := m.published("veth0", "other"); !w.agree(t, got, want) {
				t.Errorf("got %v, want the interface's %v", got, want)
			}
		})
	}
}

func (w *wire) rename(t testing.TB, name string) {
	t.Helper()
	if err := renameLink(w.host, w.index, name); err != nil {
		t.Fatal(err)
	}
}

// renameLink also takes the link down and up: before Linux 6.2 none that is up can
// be renamed.
func renameLink(in *ktest.Namespace, index int, name string) error {
	err := in.Do(func() error {
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetDown(l); err != nil {
			return err
		}
		if err := netlink.LinkSetName(l, name); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	if err != nil {
		return fmt.Errorf("rename to %s: %w", name, err)
	}
	return nil
}

// What others detach is attached again, and the gap is seeded. Of filters and
// qdiscs the kernel tells it, of TCX links the ledger does.
func TestDetachedByOthers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mode   AttachMode
		detach func(*testMeter, *wire) error
	}{
		{"qdisc", AttachNetlink, func(_ *testMeter, w *wire) error { return netlink.QdiscDel(clsact(w.index)) }},
		{"filter", AttachNetlink, func(m *testMeter, w *wire) error {
			return netlink.FilterDel(m.attacher.filter(w.index, flows.Transmit, 1))
		}},
		{"TCX link", AttachTCX, func(m *testMeter, w *wire) error {
			l, err := link.LoadPinnedLink(m.attacher.linkPin(w.index, flows.Transmit), nil)
			if err != nil {
				return err
			}
			defer l.Close()
			return l.(interface{ Detach() error }).Detach()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			requireMode(t, test.mode)
			w := newWire(t)
			m := startMeter(t, w.host, func(o *Options) {
				o.Attach = test.mode
				if test.mode == AttachNetlink {
					o.DrainInterval = time.Hour // no comparison finds it
				}
			})
			m.awaitState(t, "veth0", StateAttached)
			unpublished := before(m, "veth0")
			w.pod.Send(t, "198.51.100.1:9", 100, 20)
			since := m.Interfaces()[0].Since
			if err := w.host.Do(func() error { return test.detach(m, w) }); err != nil {
				t.Fatalf("detach: %v", err)
			}
			w.pod.Send(t, "198.51.100.1:9", 100, 30)
			ktest.Await(t, "veth0 is attached again", func() bool {
				all := m.Interfaces()
				return len(all) == 1 && all[0].State == StateAttached && all[0].Since != since
			})
			w.pod.Send(t, "198.51.100.1:9", 100, 10)
			want := w.ended(t).sub(unpublished)
			m.stop()
			if got := m.published("veth0"); !w.agree(t, got, want) {
				t.Errorf("got %v, want the interface's %v", got, want)
			}
		})
	}
}

// Where an ingress qdisc takes the place of clsact, what the pod receives is
// known from the interface's own counters alone.
func TestIngressQdiscIsPartial(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: w.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS,
	}}
	if err := w.host.Do(func() error { return netlink.QdiscAdd(ingress) }); err != nil {
		t.Fatalf("add ingress qdisc: %v", err)
	}
	m := startMeter(t, w.host, func(o *Options) { o.Attach = AttachNetlink })
	m.awaitState(t, "veth0", StatePartial)
	unpublished := before(m, "veth0")
	w.pod.Send(t, "198.51.100.1:9", 100, 40)
	w.host.Send(t, "198.51.100.2:9", 100, 30)
	want := w.ended(t).sub(unpublished)
	ktest.Await(t, "all has been published", func() bool { return m.published("veth0") == want })
	totals, seeded := m.book.of("veth0")
	if totals[flows.Receive] != (flows.Counters{}) || seeded[flows.Transmit] != (flows.Counters{}) {
		t.Errorf("got %v counted and %v from the ledger, want transmit counted and receive from the ledger", totals, seeded)
	}
	m.stop()
	if _, err := (remains{path: m.options.PinPath, within: w.host.Do}).remove(); err != nil {
		t.Fatal(err)
	}
	if kinds := w.qdiscs(t); len(kinds) != 1 || kinds[0] != "ingress" {
		t.Errorf("qdiscs after the end: got %v, want the ingress that was there", kinds)
	}
}

// qdiscs returns the kinds of the qdiscs on ingress.
func (w *wire) qdiscs(t testing.TB) (kinds []string) {
	t.Helper()
	err := w.host.Do(func() error {
		all, err := netlink.QdiscList(device(w.index))
		for _, q := range all {
			if q.Attrs().Handle == netlink.MakeHandle(0xffff, 0) {
				kinds = append(kinds, q.Type())
			}
		}
		return err
	})
	if err != nil {
		t.Fatalf("list qdiscs: %v", err)
	}
	return kinds
}

// An interface that lives for a moment only loses nothing that was known of it.
func TestShortLifeIsSeeded(t *testing.T) {
	r := newRegistry()
	a := &attachment{point: 7, seeded: true, hooks: hooks{netlinkHook{}}}
	r.put(a)
	a.read(look(0, packets(5, 3), packets(1, 1)))
	a.leave(time.UnixMilli(5))
	epoch := &flows.Epoch{Totals: []flows.Total{{Point: 7}, {Point: 7, Direction: flows.Receive}}}
	r.complete(epoch)
	if got, want := (byDirection{epoch.Totals[0].Seeded, epoch.Totals[1].Seeded}), packets(4, 2); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A seed waits for an epoch that has its point, and is published once.
func TestSeedWaitsForItsTotal(t *testing.T) {
	r := newRegistry()
	r.put(&attachment{point: 7, seeds: packets(3, 0)})
	early := &flows.Epoch{} // its totals were read before the point was made
	r.seeded(r.complete(early))
	for n, want := range []flows.Counters{packets(3, 0)[0], {}} {
		epoch := &flows.Epoch{Totals: []flows.Total{{Point: 7}, {Point: 7, Direction: flows.Receive}}}
		r.seeded(r.complete(epoch))
		if got := epoch.Totals[0].Seeded; got != want {
			t.Errorf("epoch %d: got %v, want %v", n, got, want)
		}
	}
}
