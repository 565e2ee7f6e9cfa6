// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"testing"
	"time"
)

// An interface that is younger than the news of its address's last owner waits,
// whole, and is bound then.
func TestYoungInterfaceWaits(t *testing.T) {
	publisher, table, d := world(1, TableOptions{FlowLimit: 100, ExternalLimit: 100}, Optional{})
	now := start.Add(4 * time.Second)
	publisher.options.Binder = AddressBinder{Directory: d, MinAge: 5 * time.Second, Now: func() time.Time { return now }}
	epoch := func() *Epoch {
		return &Epoch{
			Start: start, End: now, Interfaces: []Interface{iface(1)},
			Totals: []Total{{Point: 1, Counters: Counters{100, 1}, Unplaced: Counters{100, 1}}},
		}
	}
	if err := publisher.Publish(epoch()); err != nil {
		t.Fatal(err)
	}
	if got := table.Snapshot(); len(got.Pods) != 0 || publisher.Stats().UnboundBytes != 100 {
		t.Errorf("after 4 s: got %d pods, %d bytes unbound, want none and 100", len(got.Pods), publisher.Stats().UnboundBytes)
	}
	now = start.Add(5 * time.Second)
	if err := publisher.Publish(epoch()); err != nil {
		t.Fatal(err)
	}
	if got := table.Snapshot(); len(got.Pods) != 1 || got.Pods[0].Counters[Transmit].Bytes != 200 {
		t.Errorf("after 5 s: got %+v, want one pod with 200 bytes", got.Pods)
	}
}

// inNamespace returns an interface of a pod whose other end is in the network
// namespace with that id.
func inNamespace(n, id int) Interface {
	i := iface(n)
	i.PeerNamespace = id
	return i
}

// anonymous returns one that no address tells the pod of.
func anonymous(n, id int) Interface {
	i := inNamespace(n, id)
	i.Addresses = nil
	return i
}

func gone(i Interface, after time.Duration) Interface {
	i.Gone = start.Add(after)
	return i
}

// An interface without an address belongs to the pod of a living interface of
// the same network namespace. The kernel gives the id of a namespace again at
// once, so an interface that is gone neither gives nor takes by it.
func TestSameNamespace(t *testing.T) {
	for _, c := range []struct {
		name   string
		epochs []*Epoch
		want   map[string]uint64
		wait   uint64
	}{
		{name: "two interfaces of a pod", want: map[string]uint64{"pod1": 105}, epochs: []*Epoch{
			epochOf(0, []Interface{inNamespace(1, 3), anonymous(2, 3)}, unplaced(1, 100), unplaced(2, 5)),
		}},
		{name: "one of three is gone", want: map[string]uint64{"pod1": 107}, epochs: []*Epoch{
			epochOf(0, []Interface{inNamespace(1, 3), anonymous(2, 3)}, unplaced(1, 100), unplaced(2, 5)),
			epochOf(1, []Interface{gone(inNamespace(1, 3), 6*time.Second), anonymous(2, 3)}),
			epochOf(2, []Interface{anonymous(2, 3), anonymous(3, 3)}, unplaced(3, 2)),
		}},
		{name: "id given again while the old interface is drained", want: map[string]uint64{"pod1": 100}, wait: 5, epochs: []*Epoch{
			epochOf(0, []Interface{inNamespace(1, 3)}, unplaced(1, 100)),
			epochOf(1, []Interface{gone(inNamespace(1, 3), 6*time.Second), anonymous(2, 3)}, unplaced(2, 5)),
		}},
		{name: "id given again after a last message without it", want: map[string]uint64{"pod1": 100}, wait: 5, epochs: []*Epoch{
			epochOf(0, []Interface{inNamespace(1, 3)}, unplaced(1, 100)),
			epochOf(1, []Interface{gone(inNamespace(1, -1), 6*time.Second)}),
			epochOf(2, nil),
			epochOf(3, []Interface{anonymous(2, 3)}, unplaced(2, 5)),
		}},
		{name: "id given again while nobody said that the old interface is gone", want: map[string]uint64{"pod1": 100}, wait: 5, epochs: []*Epoch{
			epochOf(0, []Interface{inNamespace(1, 3)}, unplaced(1, 100)),
			epochOf(1, []Interface{anonymous(2, 3)}, unplaced(2, 5)),
		}},
		{name: "gone interface", want: map[string]uint64{"pod1": 100}, wait: 5, epochs: []*Epoch{
			epochOf(0, []Interface{anonymous(2, 3)}, unplaced(2, 5)),
			epochOf(1, []Interface{gone(anonymous(2, 3), 6*time.Second), inNamespace(1, 3)}, unplaced(1, 100)),
		}},
		{name: "orphan", want: map[string]uint64{"pod1": 100}, wait: 5, epochs: []*Epoch{
			epochOf(0, []Interface{anonymous(2, 3)}, unplaced(2, 5)),
			epochOf(1, []Interface{gone(anonymous(2, 3), 6*time.Second)}),
			epochOf(2, nil),
			epochOf(3, []Interface{inNamespace(1, 3)}, unplaced(1, 100)),
			epochOf(4, []Interface{inNamespace(1, 3)}),
		}},
		{name: "id of two pods", want: map[string]uint64{"pod1": 100, "pod2": 200}, wait: 5, epochs: []*Epoch{
			epochOf(0, []Interface{inNamespace(1, 3), inNamespace(2, 3), anonymous(3, 3)},
				unplaced(1, 100), unplaced(2, 200), unplaced(3, 5)),
		}},
		{name: "no namespace", want: map[string]uint64{"pod1": 100}, wait: 5, epochs: []*Epoch{
			epochOf(0, []Interface{inNamespace(1, -1), anonymous(2, -1)}, unplaced(1, 100), unplaced(2, 5)),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			publisher, table, _ := world(2, roomy, Optional{})
			publish(t, publisher, c.epochs...)
			checkSent(t, table, c.want)
			if got := publisher.Stats().UnboundBytes; got != c.wait {
				t.Errorf("bytes that wait: got %d, want %d", got, c.wait)
			}
		})
	}
}

// The kernel gives an id again before it removes the interfaces of the namespace
// that had it: only if two interfaces show it for a while are they of one pod.
func TestSameNamespaceTakesAge(t *testing.T) {
	for _, c := range []struct {
		name          string
		named, unsaid time.Duration // when they were attached
		now           time.Duration
		want          uint64
	}{
		{"both old", 0, 0, namespaceAge, 105},
		{"taker young", 0, time.Second, namespaceAge, 100},
		{"giver young", time.Second, 0, namespaceAge, 100},
		{"both old at last", time.Second, 0, namespaceAge + time.Second, 105},
	} {
		t.Run(c.name, func(t *testing.T) {
			publisher, table, d := world(1, roomy, Optional{})
			publisher.options.Binder = AddressBinder{Directory: d, Now: func() time.Time { return start.Add(c.now) }}
			named, unsaid := inNamespace(1, 3), anonymous(2, 3)
			named.Attached, unsaid.Attached = start.Add(c.named), start.Add(c.unsaid)
			publish(t, publisher, epochOf(0, []Interface{named, unsaid}, unplaced(1, 100), unplaced(2, 5)))
			checkSent(t, table, map[string]uint64{"pod1": c.want})
		})
	}
}

// Addresses that packets showed name a pod only if it has no interface yet.
func TestSeenAddresses(t *testing.T) {
	for _, c := range []struct {
		name   string
		source netip.Addr
		want   map[string]uint64
	}{
		{"of a pod without interface", podAddress(2), map[string]uint64{"pod1": 100, "pod2": 5}},
		{"of a bound pod", podAddress(1), map[string]uint64{"pod1": 100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			publisher, table, _ := world(2, roomy, Optional{})
			e := epochOf(0, []Interface{iface(1), anonymous(2, 7)}, unplaced(1, 100), Total{Point: 2, Counters: Counters{5, 1}})
			e.Records = []Record{{Counters: Counters{5, 1}, First: e.Start, Last: e.End, Key: Key{
				Point: 2, EtherType: EtherTypeIPv4, Source: c.source, Destination: podAddress(9)}}}
			publish(t, publisher, e)
			checkSent(t, table, c.want)
		})
	}
}
