// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
)

// What the kernel's types tell is what it does.
func TestCountsRedirects(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	d := newDetour(t, w)
	d.send(t)
	w.exchange(t, 1, 50) // comes to the pod's end after what was redirected
	ktest.Await(t, "what was sent has come", func() bool { return w.podSide(t)[flows.Receive].Packets >= 50 })
	time.Sleep(100 * time.Millisecond) // for a softirq of another CPU
	counted := w.podSide(t)[flows.Receive].Packets >= 50+injected
	if got := countsRedirects(); got != counted {
		t.Errorf("got %t, and the pod's end counts %v of %d redirected packets", got, w.podSide(t), injected)
	}
}

// Where redirected packets are counted nowhere, an interface is unknown as long as
// somebody on another link could redirect; without him it is simply attached.
func TestUnknown(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	m := startMeter(t, w.host, func(o *Options) {
		o.Interfaces = []string{"veth0", "within0"}
		o.countsRedirects = func() bool { return false }
	})
	w.host.VethWithin(t, "within0", "within1") // nothing can be redirected to its other end
	m.awaitState(t, "veth0", StateAttached)
	m.awaitState(t, "within0", StateAttached)
	d := newDetour(t, w)
	m.awaitState(t, "veth0", StateUnknown)
	if got := m.state("within0"); got != StateAttached {
		t.Errorf("within one namespace: got %q, want %q", got, StateAttached)
	}
	err := d.host.Do(func() error {
		up, err := netlink.LinkByName("up0")
		if err != nil {
			return err
		}
		return netlink.QdiscDel(clsact(up.Attrs().Index))
	})
	if err != nil {
		t.Fatalf("delete qdisc: %v", err)
	}
	m.awaitState(t, "veth0", StateAttached)
}

// A pod's end that cannot be looked at tells nothing either.
func TestBlindIsUnknown(t *testing.T) {
	there := hooks{netlinkHook{}, netlinkHook{}}
	for _, test := range []struct {
		name string
		a    attachment
		want State
	}{
		{"nobody could redirect", attachment{hooks: there, blind: true}, StateAttached},
		{"somebody could", attachment{hooks: there, blind: true, doubtful: true}, StateUnknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.a.ledger.settled = true
			if got := test.a.state(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	ktest.Privileged(t)
	w := newWire(t)
	err := w.host.Do(func() error {
		sides, err := openPodSides()
		if err != nil {
			return err
		}
		defer sides.close()
		if c, err := sides.received(4711, 2); err == nil {
			t.Errorf("no such namespace: got %v, want an error", c)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkCountsRedirects(b *testing.B) {
	for b.Loop() {
		countsRedirects()
	}
}

// What the pods' ends of 100 veths cost a comparison.
func BenchmarkPodSides(b *testing.B) {
	host := ktest.NewNamespace(b)
	var links []netlink.Link
	for range 100 {
		host.Veth(b, "v"+string(rune('a'+len(links)/26))+string(rune('a'+len(links)%26)), ktest.NewNamespace(b), "eth0")
		links = append(links, nil)
	}
	err := host.Do(func() error {
		all, err := listLinks()
		if err != nil {
			return err
		}
		for b.Loop() {
			sides, err := openPodSides()
			if err != nil {
				return err
			}
			for _, l := range all {
				if namespace, ifindex, ok := farEnd(l); ok {
					if _, err := sides.received(namespace, ifindex); err != nil {
						return err
					}
				}
			}
			sides.close()
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
