// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"testing"
	"time"
)

// Foreign implements [OwnAddresses]: of pods that have an address, all others are.
func (d *directory) Foreign(pod *Pod, address netip.Addr, _, _ time.Time) bool {
	known := false
	for own, of := range d.pods {
		if of.UID != pod.UID {
			continue
		}
		if known = true; own == address {
			return false
		}
	}
	return known
}

// What a pod sends from an address that is not its own is counted, once, whatever the
// address is; what any pod sends from no address of its own is not.
func TestForeignSources(t *testing.T) {
	own, other := podAddress(1), podAddress(2)
	extra, announced := netip.MustParseAddr("192.168.7.1"), netip.MustParseAddr("192.168.7.9")
	with := func(change func(*Interface)) Interface { i := iface(1); change(&i); return i }
	for _, c := range []struct {
		name   string
		i      Interface
		source netip.Addr // the zero one of a packet without an IP header
		want   uint64
	}{
		{"its own", iface(1), own, 0},
		{"another pod's", iface(1), other, 1},
		{"a pod's of another node", iface(1), netip.MustParseAddr("10.1.0.9"), 1},
		{"of the internet", iface(1), netip.MustParseAddr("203.0.113.9"), 1},
		{"IPv6 of the internet", iface(1), netip.MustParseAddr("2001:db8::9"), 1},
		{"link-local", iface(1), netip.MustParseAddr("169.254.1.1"), 0},
		{"IPv6 link-local, as in neighbour discovery", iface(1), netip.MustParseAddr("fe80::1"), 0},
		{"unspecified, as in DHCP", iface(1), netip.MustParseAddr("0.0.0.0"), 0},
		{"IPv6 unspecified, as when an address is tried", iface(1), netip.MustParseAddr("::"), 0},
		{"loopback", iface(1), netip.MustParseAddr("127.0.0.1"), 0},
		{"multicast", iface(1), netip.MustParseAddr("224.0.0.1"), 0},
		{"no IP header, as in ARP", iface(1), netip.Addr{}, 0},
		{"that the host routes to it alone", with(func(i *Interface) { i.Addresses = append(i.Addresses, extra) }), extra, 0},
		{"at its end and nobody's", with(func(i *Interface) { i.PeerAddresses = []netip.Addr{netip.MustParseAddr("203.0.113.5")} }), netip.MustParseAddr("203.0.113.5"), 0},
		{"at its end, though another pod's", with(func(i *Interface) { i.PeerAddresses = []netip.Addr{own, other} }), other, 1},
		{"at its end, and announced by another pod", with(func(i *Interface) { i.PeerAddresses = []netip.Addr{announced} }), announced, 0},
		{"that another pod announces", iface(1), announced, 1},
		{"of a pod in the node's network", with(func(i *Interface) { i.PodUID = "uid1" }), other, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &directory{pods: make(map[netip.Addr]*Pod)}
			publisher, table, known := world(2, roomy, Optional{})
			known.announced = announced
			*d = *known
			publisher.options.Addresses = d
			publisher.options.Binder = boundTo{d.pods[own]}
			e := sends(0, []Interface{c.i}, map[int][]netip.Addr{1: {c.source, own}})
			if !c.source.IsValid() {
				e.Records[0].Key = Key{Point: 1, EtherType: 0x0806}
			}
			received := e.Records[0]
			received.Key.Direction, received.Key.Source, received.Key.Destination = Receive, other, c.source
			e.Records = append(e.Records, received)
			e.Totals = totalsOf(e.Records)
			publish(t, publisher, e)
			checkForeign(t, table, map[string]uint64{"pod1": c.want})
			checkIdentities(t, table.Snapshot())
		})
	}
}

// boundTo binds everything to one pod.
type boundTo struct{ pod *Pod }

// Bind implements [Binder].
func (b boundTo) Bind(Interface, []netip.Addr, *Bound) *Pod { return b.pod }

func checkForeign(t *testing.T, table *Table, want map[string]uint64) {
	t.Helper()
	got := make(map[string]uint64)
	for _, s := range table.Snapshot().Foreign {
		got[s.Pod] = s.Counters[Transmit].Bytes
	}
	for pod, bytes := range want {
		if sum, known := got[pod]; !known || sum != bytes {
			t.Errorf("foreign bytes of %s: got %d, known %t, want %d", pod, sum, known, bytes)
		}
	}
}

// What a pod sent before its interface was bound is counted then, also by another agent, from
// as many addresses as are remembered; where nobody knows its addresses nothing is.
func TestForeignSourcesBeforeBinding(t *testing.T) {
	own, other := podAddress(1), podAddress(2)
	spoofed := map[int][]netip.Addr{1: {other, own, other}}
	waits := func() *Publisher {
		publisher, _, _ := world(0, roomy, Optional{})
		publish(t, publisher, sends(0, []Interface{iface(1)}, spoofed), sends(1, []Interface{iface(1)}, spoofed))
		return publisher
	}
	for _, c := range []struct {
		name   string
		knows  bool
		resume bool
		want   uint64
	}{{"by the same agent", true, false, 4}, {"by the next agent", true, true, 4}, {"unknown addresses", false, false, 0}} {
		t.Run(c.name, func(t *testing.T) {
			publisher := waits()
			if c.resume {
				next, _, _ := world(0, roomy, Optional{})
				if err := next.Restore(publisher.state()); err != nil {
					t.Fatal(err)
				}
				publisher = next
			}
			_, _, known := world(2, roomy, Optional{})
			publisher.options.Binder = boundTo{known.pods[own]}
			if c.knows {
				publisher.options.Addresses = known
			}
			publish(t, publisher, sends(2, []Interface{iface(1)}, nil))
			checkForeign(t, publisher.options.Table, map[string]uint64{"pod1": c.want})

			last, table, _ := world(0, roomy, Optional{})
			if err := last.Restore(publisher.state()); err != nil {
				t.Fatal(err)
			}
			checkForeign(t, table, map[string]uint64{"pod1": c.want})
		})
	}
}
