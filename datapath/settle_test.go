// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// settleCase is a way in which packets reach an interface, or pass podmeter.
type settleCase struct {
	name    string
	attach  AttachMode
	prepare func(*testing.T, *wire)             // before the meter
	traffic func(*testing.T, *wire, *testMeter) // while it runs
	state   State
}

func settleCases() []settleCase {
	exchange := func(t *testing.T, w *wire, _ *testMeter) { w.exchange(t, 20, 30) }
	return []settleCase{
		{name: "attached", state: StateAttached, traffic: exchange},
		{name: "shadowed", attach: AttachNetlink, state: StateShadowed, traffic: func(t *testing.T, w *wire, _ *testMeter) {
			w.exchange(t, 5, 5)
			w.foreignFilter(t, flows.Transmit, 1, unix.ETH_P_ALL, 0)
			w.exchange(t, 20, 30)
		}},
		{name: "no longer shadowed", attach: AttachNetlink, state: StateAttached, traffic: func(t *testing.T, w *wire, m *testMeter) {
			remove := w.foreignFilter(t, flows.Transmit, 1, unix.ETH_P_ALL, 0)
			w.exchange(t, 20, 30)
			m.settleOnce(t, w)
			w.exchange(t, 7, 8)
			remove()
			w.exchange(t, 20, 30)
		}},
		{name: "partial", attach: AttachNetlink, state: StatePartial, traffic: exchange, prepare: func(t *testing.T, w *wire) {
			ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
				LinkIndex: w.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS,
			}}
			if err := w.host.Do(func() error { return netlink.QdiscAdd(ingress) }); err != nil {
				t.Fatalf("add ingress qdisc: %v", err)
			}
		}},
		{name: "bypassed", state: StateBypassed, prepare: func(t *testing.T, _ *wire) { requireCountedRedirects(t) },
			traffic: func(t *testing.T, w *wire, _ *testMeter) {
				d := newDetour(t, w)
				d.send(t)
				w.exchange(t, 20, 30)
			}},
	}
}

// settleOnce lets the meter settle while no packet moves on the wire.
func (m *testMeter) settleOnce(t testing.TB, w *wire) {
	t.Helper()
	for range 10 {
		before := [...]byDirection{w.settled(t), w.podSide(t)}
		if err := m.Settle(t.Context()); err != nil {
			t.Fatalf("settle: %v", err)
		}
		if before == [...]byDirection{w.counters(t), w.podSide(t)} {
			return
		}
	}
	t.Fatal("packets still move on the wire")
}

// All that has passed before Settle is published when it returns, by whichever way it
// is known, though no other drain is due.
func TestSettlePublishesAll(t *testing.T) {
	for _, c := range settleCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			if c.prepare != nil {
				c.prepare(t, w)
			}
			m := startRestingMeter(t, w, c.attach)
			unpublished := before(m, "veth0")
			c.traffic(t, w, m)
			m.settleOnce(t, w)
			i := m.status("veth0")
			ours, ledger := m.published("veth0"), w.podSide(t).sub(unpublished)
			if ours != ledger || i.State != c.state || ledger[flows.Transmit].Packets < 20 || ledger[flows.Receive].Packets < 30 {
				t.Errorf("got %v in state %s, want the interface's %v in state %s", ours, i.State, ledger, c.state)
			}
			if i.Difference != [flows.Directions]int64{} || i.DifferenceBytes != [flows.Directions]int64{} {
				t.Errorf("got a difference of %v packets, %v bytes, want none", i.Difference, i.DifferenceBytes)
			}
		})
	}
}

// startRestingMeter starts a meter that drains when it is asked to.
func startRestingMeter(t testing.TB, w *wire, attach AttachMode) *testMeter {
	t.Helper()
	m := startMeter(t, w.host, func(o *Options) {
		o.DrainInterval, o.noWakeups, o.Interfaces = time.Hour, true, []string{"veth0"}
		if attach != "" {
			o.Attach = attach
		}
	})
	ktest.Await(t, "veth0 is settled", func() bool { s := m.state("veth0"); return s == StateAttached || s == StatePartial })
	return m
}

// Where the ledger differs, Settle lets it tell by how much, in packets and bytes: what
// is published and that make up the interface's own count.
func TestSettleTellsTheDifference(t *testing.T) {
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			if lacks := r.prepare(t, w); lacks != "" {
				t.Skip(lacks)
			}
			watch := w.watch(t)
			m := startRestingMeter(t, w, "")
			unpublished, dropped := before(m, "veth0"), w.dropped(t)
			r.traffic(t, w)
			m.settleOnce(t, w)
			s := &scene{wire: w, ours: metered(t, m.drainer, w.index), sent: watch(), dropped: w.dropped(t) - dropped}
			want, i := r.predict(s), m.status("veth0")
			for d := range want {
				if i.Difference[d] != want[d].packets || i.DifferenceBytes[d] != want[d].bytes || i.State != r.state {
					t.Errorf("%v: got a difference of %d packets and %d bytes, state %s; want %+v, %s", flows.Direction(d),
						i.Difference[d], i.DifferenceBytes[d], i.State, want[d], r.state)
				}
			}
			ledger := byDirection(w.counters(t)).sub(unpublished)
			if got := apartBy(ledger, m.published("veth0")); got != want {
				t.Errorf("interface beyond what is published: got %+v, want %+v", got, want)
			}
		})
	}
}

// Settle gives up with its context, and after the meter's end.
func TestSettleEnds(t *testing.T) {
	w := newWire(t)
	m := startRestingMeter(t, w, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.gate <- struct{}{}
	if err := m.Settle(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("while another drains: got %v, want %v", err, context.Canceled)
	}
	<-m.gate
	m.stop()
	if err := m.Settle(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: got %v, want %v", err, ErrClosed)
	}
}
