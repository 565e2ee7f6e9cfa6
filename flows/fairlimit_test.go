// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// crowd is as many pods as a kubelet has by default, of which all but the victim, the last
// one, are hostile.
const crowd, victim = 110, 110

// to is a record of a byte that a pod sent to an external address of its own.
func to(pod, number int, e *Epoch) Record {
	return Record{Counters: Counters{1, 1}, First: e.Start, Last: e.End, Key: Key{
		Point: Point(pod), EtherType: EtherTypeIPv4, Protocol: ProtocolTCP, Source: podAddress(pod),
		Destination:     netip.AddrFrom4([4]byte{198, 51, byte(number >> 8), byte(number)}),
		DestinationPort: 443}}
}

// crowded is an epoch in which pods sent to as many addresses as each has in sets.
func crowded(number int, sets map[int]int) *Epoch {
	e := epochOf(number, nil)
	for pod := 1; pod <= crowd; pod++ {
		if n, there := sets[pod]; there {
			e.Interfaces = append(e.Interfaces, iface(pod))
			for address := range n {
				e.Records = append(e.Records, to(pod, address, e))
			}
		}
	}
	e.Totals = totalsOf(e.Records)
	return e
}

// hostile are all pods but the victim, each with n label sets.
func hostile(n int) map[int]int {
	sets := make(map[int]int)
	for pod := 1; pod <= crowd; pod++ {
		if pod != victim {
			sets[pod] = n
		}
	}
	return sets
}

// with adds a pod.
func with(sets map[int]int, pod, n int) map[int]int {
	sets[pod] = n
	return sets
}

// Whatever 109 pods send, the last one has its floor in both families: an equal share. What
// is folded, of anybody, stays external.
func TestFloorOfEachPod(t *testing.T) {
	options := TableOptions{FlowLimit: 2000, ExternalLimit: 1000, FlowIdle: time.Hour, SeriesGrace: time.Hour}
	const flowFloor, externalFloor = 2000 / crowd, 1000 / crowd
	for name, sets := range map[string][]map[int]int{
		"the others come first":  {hostile(60), with(hostile(60), victim, externalFloor)},
		"the others come later":  {{victim: externalFloor}, with(hostile(60), victim, externalFloor)},
		"all at once":            {with(hostile(60), victim, externalFloor)},
		"four take all":          {{1: 500, 2: 500, 3: 500, 4: 500}, {1: 500, 2: 500, 3: 500, 4: 500, victim: externalFloor}},
		"others came and ended":  {hostile(60), {victim: 0}, {victim: externalFloor}},
		"one by one, with peers": {hostile(3), hostile(30), hostile(60), {victim: 3}, {victim: externalFloor}},
	} {
		t.Run(name, func(t *testing.T) {
			publisher, table, _ := world(crowd, options, Optional{PeerIP: true, IP: true})
			for number, s := range sets {
				publish(t, publisher, crowded(number, s))
				checkCrowd(t, table, options)
			}
			s := table.Snapshot()
			if flows, externals := rowsOf(s, victim); flows != externalFloor || externals != externalFloor {
				t.Errorf("got %d flow and %d external rows of the victim, want %d of each", flows, externals, externalFloor)
			}
		})
	}
	t.Run("of flows", func(t *testing.T) {
		publisher, table, _ := world(crowd, options, Optional{PeerIP: true})
		publish(t, publisher, crowded(0, hostile(60)), crowded(1, with(hostile(60), victim, 60)))
		checkCrowd(t, table, options)
		if flows, _ := rowsOf(table.Snapshot(), victim); flows != flowFloor {
			t.Errorf("got %d flow rows of the victim, want %d", flows, flowFloor)
		}
	})
}

// rowsOf counts a pod's rows of its own, but for those that take what is folded.
func rowsOf(s *Snapshot, pod int) (flows, externals int) {
	name := fmt.Sprint("pod", pod)
	for i := range s.Flows {
		flows += count(s.Flows[i].Pod == name && s.Flows[i].Labels.PeerKind == PeerExternal && s.Flows[i].Labels.Peer != folded)
	}
	for i := range s.Externals {
		externals += count(s.Externals[i].Pod == name && s.Externals[i].Labels.Country != folded)
	}
	return flows, externals
}

// checkCrowd checks the sums, that limits hold, and that all but what is in no flow is external.
func checkCrowd(t *testing.T, table *Table, options TableOptions) {
	t.Helper()
	s := table.Snapshot()
	checkIdentities(t, s)
	if s.FlowSets > options.FlowLimit || s.ExternalSets > options.ExternalLimit {
		t.Errorf("got %d and %d label sets, want at most %d and %d", s.FlowSets, s.ExternalSets, options.FlowLimit, options.ExternalLimit)
	}
	for i := range s.Flows {
		labels := &s.Flows[i].Labels
		if labels.PeerKind != PeerExternal || labels.Locality != LocalityExternal {
			t.Errorf("%s: got %v %v, want external", s.Flows[i].Pod, labels.PeerKind, labels.Locality)
		}
	}
}

// What loses its place is the set that was idle for longest of the pod that has most, and it
// does not come back while it sends.
func TestWhoLosesAPlace(t *testing.T) {
	options := TableOptions{FlowLimit: 16, ExternalLimit: 1000, FlowIdle: time.Hour, SeriesGrace: time.Hour}
	publisher, table, _ := world(crowd, options, Optional{PeerIP: true})
	publish(t, publisher, crowded(0, map[int]int{1: 4, 2: 3, 3: 3, 4: 3, 5: 3})) // all taken
	publish(t, publisher, crowded(1, map[int]int{1: 3, 2: 2, 3: 2, 4: 2, 5: 2})) // of each the last is idle
	publish(t, publisher, crowded(2, map[int]int{1: 3, 2: 3, 3: 3, 4: 3, 5: 3, 6: 1}))
	publish(t, publisher, crowded(3, map[int]int{1: 4, 2: 3, 3: 3, 4: 3, 5: 3, 6: 1}))
	s := table.Snapshot()
	checkIdentities(t, s)
	for pod, want := range map[int]int{1: 3, 2: 3, 3: 3, 4: 3, 5: 3, 6: 1} {
		if got, _ := rowsOf(s, pod); got != want {
			t.Errorf("pod %d: got %d rows, want %d", pod, got, want)
		}
	}
	lost := to(1, 3, crowded(0, nil)).Key.Destination
	for _, flow := range s.Flows {
		if flow.Pod == "pod1" && flow.Labels.PeerIP == lost {
			t.Errorf("got a row of %v, which was idle, want it folded", lost)
		}
	}
}
