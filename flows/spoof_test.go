// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"
)

// timed is a directory of pods of this node that have an address for a time.
type timed struct {
	directory
	lives map[netip.Addr]podLife
}

type podLife struct{ from, to time.Duration } // after the start; for ever if to is 0

// LocalPod implements [Directory].
func (d *timed) LocalPod(address netip.Addr, from, to time.Time) *Pod {
	l := d.lives[address]
	if from.Before(start.Add(l.from)) || l.to > 0 && !to.Before(start.Add(l.to)) {
		return nil
	}
	return d.pods[address]
}

// opaque is an interface of which nothing is known but its packets.
func opaque(n int) Interface { return anonymous(n, 100+n) }

// ended is one that has addresses at its other end.
func ended(n int, addresses ...netip.Addr) Interface {
	i := opaque(n)
	i.PeerAddresses = addresses
	return i
}

func attached(i Interface, after time.Duration) Interface {
	i.Attached = start.Add(after)
	return i
}

// sends is an epoch in which interfaces send a byte from each of some addresses.
func sends(number int, interfaces []Interface, sources map[int][]netip.Addr) *Epoch {
	e := epochOf(number, interfaces)
	for n, addresses := range sources {
		for _, source := range addresses {
			e.Records = append(e.Records, Record{Counters: Counters{1, 1}, First: e.Start, Last: e.End, Key: Key{Point: Point(n),
				EtherType: EtherTypeIPv4, Source: source, Destination: netip.MustParseAddr("203.0.113.1")}})
		}
	}
	e.Totals = totalsOf(e.Records)
	return e
}

// Whoever sends from another's address is not taken for it, whenever that begins, and
// what it sends waits for its own pod or is its own pod's. Each row has the victim, pod1, and
// another one, pod2; interface 1 is the victim's, 2 the sender's.
func TestSpoofedSources(t *testing.T) {
	victim, other, six := podAddress(1), podAddress(2), netip.MustParseAddr("2001:db8::1")
	foreign := netip.MustParseAddr("10.1.0.9") // a pod's of another node
	from := func(address ...netip.Addr) map[int][]netip.Addr { return map[int][]netip.Addr{2: address} }
	both := func(address netip.Addr) map[int][]netip.Addr { return map[int][]netip.Addr{1: {address}, 2: {address}} }
	for _, c := range []struct {
		name   string
		lives  map[netip.Addr]podLife
		epochs []*Epoch // of 5 s
		want   map[string]uint64
		wait   uint64
	}{
		{"of a pod that is bound, epoch after epoch", nil, []*Epoch{
			sends(0, []Interface{iface(1)}, nil),
			sends(10, []Interface{iface(1), opaque(2)}, from(victim)),
			sends(11, []Interface{iface(1), opaque(2)}, from(victim)),
			sends(12, []Interface{iface(1), opaque(2)}, from(victim)),
		}, map[string]uint64{"pod1": 0}, 3},
		{"of a pod that is bound in the same epoch", nil, []*Epoch{
			sends(10, []Interface{opaque(2), iface(1)}, both(victim)),
			sends(11, []Interface{opaque(2), iface(1)}, from(victim)),
		}, map[string]uint64{"pod1": 1}, 2},
		{"of a pod whose end has its address", nil, []*Epoch{
			sends(10, []Interface{ended(1, victim), opaque(2)}, from(victim)),
			sends(11, []Interface{ended(1, victim), opaque(2)}, both(victim)),
		}, map[string]uint64{"pod1": 1}, 2},
		{"by a pod whose end has its own", nil, []*Epoch{
			sends(10, []Interface{opaque(1), ended(2, other)}, from(victim)),
			sends(11, []Interface{opaque(1), ended(2, other)}, from(victim, other)),
		}, map[string]uint64{"pod2": 3}, 0},
		{"by somebody whose end has an address of which nobody knows", nil, []*Epoch{
			sends(10, []Interface{ended(2, netip.MustParseAddr("172.17.0.2"))}, from(victim)),
			sends(20, []Interface{ended(2, netip.MustParseAddr("172.17.0.2"))}, from(victim)),
		}, map[string]uint64{}, 2},
		{"before the victim says anything, which it does within a while", nil, []*Epoch{
			sends(0, []Interface{opaque(1), opaque(2)}, from(victim)),
			sends(1, []Interface{opaque(1), opaque(2)}, from(victim)),
			sends(4, []Interface{opaque(1), opaque(2)}, both(victim)),
			sends(20, []Interface{opaque(1), opaque(2)}, from(victim)),
		}, map[string]uint64{}, 5},
		{"of a pod of another node", nil, []*Epoch{
			sends(10, []Interface{iface(1), opaque(2)}, from(foreign)),
			sends(20, []Interface{iface(1), opaque(2)}, from(foreign)),
		}, map[string]uint64{"pod1": 0}, 2},
		{"of a pod that is about to be made", map[netip.Addr]podLife{victim: {from: 30 * time.Second}}, []*Epoch{
			sends(1, []Interface{opaque(2)}, from(victim)),
			sends(20, []Interface{opaque(2)}, from(victim)),
		}, map[string]uint64{}, 2},
		{"of a pod that is about to be made, before the attachment", map[netip.Addr]podLife{victim: {from: 30 * time.Second}}, []*Epoch{
			sends(20, []Interface{func() Interface { i := attached(opaque(2), 40*time.Second); i.Appeared = start; return i }()}, from(victim)),
		}, map[string]uint64{}, 1},
		{"of a pod that has just been deleted", map[netip.Addr]podLife{victim: {to: 70 * time.Second}}, []*Epoch{
			sends(10, []Interface{iface(1), opaque(2)}, nil),
			sends(11, []Interface{gone(iface(1), 55*time.Second), opaque(2)}, from(victim)),
			sends(12, []Interface{opaque(2)}, from(victim)),
		}, map[string]uint64{"pod1": 0}, 2},
		{"of a pod that has just been deleted, at its own end too", map[netip.Addr]podLife{victim: {to: 55 * time.Second}}, []*Epoch{
			sends(9, []Interface{iface(1), ended(2, victim)}, nil),
			sends(10, []Interface{gone(iface(1), 50*time.Second), ended(2, victim)}, from(victim)),
			sends(11, []Interface{ended(2, victim)}, from(victim)),
		}, map[string]uint64{"pod1": 0}, 2},
		{"of a pod that has lost its interface", nil, []*Epoch{
			sends(10, []Interface{iface(1), opaque(2)}, nil),
			sends(11, []Interface{gone(iface(1), 56*time.Second), opaque(2)}, nil),
			sends(12, []Interface{opaque(2)}, from(victim)),
			sends(20, []Interface{opaque(2)}, from(victim)),
		}, map[string]uint64{"pod1": 0}, 2},
		{"of a pod without an interface, by one that is gone while the pod is not", nil, []*Epoch{
			sends(10, []Interface{gone(opaque(2), 51*time.Second)}, from(victim)),
			sends(11, nil, nil),
		}, map[string]uint64{}, 1},
		{"over IPv6", nil, []*Epoch{
			sends(10, []Interface{ended(1, six), opaque(2)}, from(six)),
			sends(11, []Interface{ended(1, six), opaque(2)}, both(six)),
		}, map[string]uint64{"pod1": 1}, 2},
		{"together with its own address", nil, []*Epoch{
			sends(10, []Interface{opaque(1), opaque(2)}, from(victim, other)),
			sends(20, []Interface{opaque(1), opaque(2)}, from(victim)),
		}, map[string]uint64{}, 3},
		{"from an address that it has given itself", nil, []*Epoch{
			sends(10, []Interface{ended(2, victim), iface(1)}, both(victim)),
			sends(11, []Interface{ended(2, victim), iface(1)}, from(victim)),
		}, map[string]uint64{"pod1": 1}, 2},
		{"from an address that it has given itself beside its own", nil, []*Epoch{
			sends(10, []Interface{ended(2, other, victim), opaque(1)}, from(victim)),
		}, map[string]uint64{}, 1},
		{"both ends have it: nobody, until one is gone", nil, []*Epoch{
			sends(10, []Interface{ended(1, victim), ended(2, victim)}, both(victim)),
			sends(11, []Interface{ended(1, victim), gone(ended(2, victim), 59*time.Second)}, nil),
			sends(12, []Interface{ended(1, victim)}, map[int][]netip.Addr{1: {victim}}),
		}, map[string]uint64{"pod1": 2}, 1},
		{"at an end, while the host routes it elsewhere, to one that is not known", nil, []*Epoch{
			sends(10, []Interface{func() Interface { i := iface(1); i.Addresses = append(i.Addresses, foreign); return i }(), ended(2, victim)}, from(victim)),
		}, map[string]uint64{}, 1},
		{"at an end to which the host routes another's", nil, []*Epoch{
			sends(10, []Interface{func() Interface { i := ended(2, victim); i.Addresses = []netip.Addr{other, foreign}; return i }()}, from(victim)),
		}, map[string]uint64{}, 1},

		// What is believed.
		{"a pod's own, of which packets alone tell", nil, []*Epoch{
			sends(0, []Interface{opaque(2)}, from(other)),
			sends(5, []Interface{opaque(2)}, from(other)),
			sends(6, []Interface{opaque(2)}, from(other)),
		}, map[string]uint64{"pod2": 3}, 0},
		{"a pod's own, not yet", nil, []*Epoch{sends(4, []Interface{opaque(2)}, from(other))}, map[string]uint64{}, 1},
		{"a pod's own, of an interface that is gone with it", map[netip.Addr]podLife{other: {to: 53 * time.Second}}, []*Epoch{
			sends(10, []Interface{gone(opaque(2), 52*time.Second)}, from(other)),
			sends(11, nil, nil),
		}, map[string]uint64{"pod2": 1}, 0},
		{"an end's, beside addresses that nobody knows", nil, []*Epoch{
			sends(0, []Interface{ended(2, netip.MustParseAddr("fe80::2"), netip.MustParseAddr("192.168.0.9"), other)}, from(other)),
		}, map[string]uint64{"pod2": 1}, 0},
		{"an end's, of a pod's second sandbox", nil, []*Epoch{
			sends(0, []Interface{ended(2, other)}, from(other)),
			sends(10, []Interface{gone(ended(2, other), 51*time.Second)}, nil),
			sends(11, nil, nil),
			sends(12, []Interface{attached(ended(3, other), 60*time.Second)}, map[int][]netip.Addr{3: {other}}),
		}, map[string]uint64{"pod2": 2}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &timed{directory{pods: make(map[netip.Addr]*Pod)}, make(map[netip.Addr]podLife)}
			_, table, fixed := world(2, roomy, Optional{})
			d.pods = fixed.pods
			d.pods[six] = d.pods[victim]
			for address, life := range c.lives {
				d.lives[address] = life
			}
			var now time.Time
			publisher := NewPublisher(PublisherOptions{Table: table, Directory: d, Places: places{}, Logger: slog.New(slog.DiscardHandler),
				Binder: AddressBinder{Directory: d, Now: func() time.Time { return now }}})
			for _, e := range c.epochs {
				now = e.End
				publish(t, publisher, e)
			}
			checkSent(t, table, c.want)
			if got := publisher.Stats().UnboundBytes; got != c.wait {
				t.Errorf("bytes that wait: got %d, want %d", got, c.wait)
			}
		})
	}
}

// That a pod had an interface outlives the agent.
func TestSpoofedAfterARestart(t *testing.T) {
	publisher, _, _ := world(1, roomy, Optional{})
	publish(t, publisher, sends(0, []Interface{iface(1)}, nil), sends(1, []Interface{gone(iface(1), 6*time.Second)}, nil), sends(2, nil, nil))
	next, table, _ := world(1, roomy, Optional{})
	if err := next.Restore(publisher.state()); err != nil {
		t.Fatal(err)
	}
	spoofed := map[int][]netip.Addr{2: {podAddress(1)}}
	publish(t, next, sends(10, []Interface{opaque(2)}, spoofed), sends(11, []Interface{opaque(2)}, spoofed))
	checkSent(t, table, map[string]uint64{"pod1": 0})
	if got := next.Stats().UnboundBytes; got != 2 {
		t.Errorf("bytes that wait: got %d, want 2", got)
	}
	// It is remembered for as long as the directory remembers pods.
	publish(t, next, sends(12+int(pastAge/(5*time.Second)), nil, nil))
	if got := len(next.past); got != 0 {
		t.Errorf("remembered in the end: got %d, want none", got)
	}
}
