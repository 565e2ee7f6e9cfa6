// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// healthWorld is world with containers, cgroup n being container n of pod n/10, and with
// sockets.
func healthWorld(pods int, options TableOptions, optional Optional, sockets readerOf) (*Publisher, *Table) {
	p, table, _ := world(pods, options, optional)
	p.options.Containers = cgroups{}
	p.attribution.sockets = newSockets(sockets, cgroups{}, p.options.Logger)
	return p, table
}

// connection is one end of a connection of a pod, as a cgroup's socket has it.
func connection(cgroup uint64, pod int, port uint16, peer string, health Health) HealthRecord {
	r := HealthRecord{Cgroup: cgroup, Local: netip.AddrPortFrom(podAddress(pod), port), Peer: netip.MustParseAddrPort(peer),
		First: at(1), Last: at(2), Opened: uint32(health.Opened), Failed: uint32(health.Failed), RTTSum: health.RTTSum,
		RetransmittedSegments: uint32(health.RetransmittedSegments), RetransmittedBytes: health.RetransmittedBytes}
	for i, n := range health.RTT {
		r.RTT[i] = uint32(n)
	}
	return r
}

func healthEpoch(number int, records ...HealthRecord) *Epoch {
	e := epochOf(number, []Interface{iface(1), iface(2)})
	e.Health = records
	return e
}

// byPeer is the health of the series by pod and peer.
func byPeer(s *Snapshot) map[string]Health {
	found := make(map[string]Health)
	for _, h := range s.Health {
		found[fmt.Sprint(h.Pod, " ", h.Labels.Container, " ", h.Labels.PeerKind, " ", h.Labels.Peer, h.Labels.PeerIP)] = h.Health
	}
	return found
}

// The health of a connection is on the row of its packets, whatever the labels.
func TestHealthIsOnTheRowOfItsFlow(t *testing.T) {
	local, peer := netip.MustParseAddrPort("10.0.0.1:5000"), "10.1.0.9:80"
	sockets := readerOf{{Protocol: ProtocolTCP, Local: local, Peer: netip.MustParseAddrPort(peer), Owners: 1, Now: by(11, 1, 0)}}
	for name, optional := range map[string]Optional{
		"default": {}, "all labels": {PeerPod: true, PeerIP: true, PeerPort: true, Process: true},
	} {
		t.Run(name, func(t *testing.T) {
			p, table := healthWorld(1, roomy, optional, sockets)
			h := Health{Opened: 1, RetransmittedSegments: 2, RetransmittedBytes: 2896, RTT: [RTTBuckets]uint64{7: 3}, RTTSum: 300}
			e := healthEpoch(0, connection(11, 1, 5000, peer, h))
			record := Record{Key: (&e.Health[0]).flow().Key, Counters: Counters{1500, 1}, First: at(1), Last: at(2)}
			record.Key.Point = 1
			e.Records, e.Totals = []Record{record}, totalsOf([]Record{record})
			publish(t, p, e)
			s := table.Snapshot()
			if len(s.Flows) != 1 || len(s.Health) != 1 {
				t.Fatalf("got %d rows of flows and %d of health, want one each", len(s.Flows), len(s.Health))
			}
			want := HealthSeries{"ns", "pod1", s.Flows[0].Labels, h, e.Start}
			if diff := cmp.Diff(want, s.Health[0], cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("health (-want +got):\n%s", diff)
			}
			if s.Health[0].Labels.Container != "c11" || s.Health[0].Labels.Protocol != ProtoTCP {
				t.Errorf("got %+v, want container c11 and tcp", s.Health[0].Labels)
			}
			checkIdentities(t, s)
		})
	}
}

// What has no pod is counted and on no series.
func TestHealthOfNobody(t *testing.T) {
	p, table := healthWorld(2, roomy, Optional{}, nil)
	publish(t, p, healthEpoch(0,
		connection(5, 1, 1, "10.1.0.9:80", Health{Opened: 1}),  // of no pod
		connection(91, 9, 2, "10.1.0.9:80", Health{Opened: 1}), // of a pod without an interface
		connection(21, 2, 3, "10.1.0.9:80", Health{Opened: 1})))
	check := func(want HealthEntries) {
		t.Helper()
		if got := p.Stats().Health; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got := byPeer(table.Snapshot()); len(got) != 1 || got["pod2  pod dbinvalid IP"].Opened != 1 {
			t.Errorf("got %v, want pod2's alone", got)
		}
	}
	check(HealthEntries{Attributed: 1, NoPod: 1})
	publish(t, p, healthEpoch(100), healthEpoch(121)) // over ten minutes later
	check(HealthEntries{Attributed: 1, NoPod: 1, Unbound: 1})
}

// What a pod's connections do before its interface is bound is published when it is.
func TestHealthWaitsForTheInterface(t *testing.T) {
	p, table := healthWorld(2, roomy, Optional{}, nil)
	first := healthEpoch(0, connection(21, 2, 1, "10.1.0.9:80", Health{Opened: 1}))
	second := healthEpoch(1, connection(21, 2, 2, "10.1.0.9:80", Health{Opened: 2}))
	first.Interfaces, second.Interfaces = first.Interfaces[:1], second.Interfaces[:1]
	publish(t, p, first, second)
	if got := table.Snapshot().Health; len(got) != 0 {
		t.Errorf("before it is there: got %+v, want nothing", got)
	}
	publish(t, p, healthEpoch(2))
	got := table.Snapshot().Health
	if len(got) != 1 || got[0].Pod != "pod2" || got[0].Health.Opened != 3 || !got[0].Created.Equal(first.Start) {
		t.Errorf("got %+v, want 3 opened by pod2 since the first epoch", got)
	}
	if got, want := p.Stats().Health, (HealthEntries{Attributed: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// No more waits than there is room for.
func TestHealthThatWaitsIsBounded(t *testing.T) {
	p, _ := healthWorld(1, roomy, Optional{PeerPort: true}, nil)
	e := healthEpoch(0)
	for port := range waitingLimit + 5 {
		e.Health = append(e.Health, connection(91, 9, 1, fmt.Sprint("10.1.0.9:", port+1), Health{Opened: 1}))
	}
	publish(t, p, e)
	if got := p.Stats().Health; len(p.early.sums) != waitingLimit || got.Unbound != 5 {
		t.Errorf("got %d that wait and %+v, want 5 that are given up", len(p.early.sums), got)
	}
}

// Each pod has an equal share of that room, however much waits of others.
func TestFloorOfHealthThatWaits(t *testing.T) {
	var (
		early   earlyHealth
		entries HealthEntries
	)
	wait := func(pod, rows int) {
		for port := range rows {
			labels := FlowLabels{PeerKind: PeerPod, PeerPort: uint16(port)}
			early.wait(fmt.Sprint("uid", pod), labels, &Health{Opened: 1}, &Batch{End: at(1)}, &entries)
		}
	}
	sent := 0
	for pod := 1; pod < victim; pod++ {
		wait(pod, 1000)
		sent += 1000
	}
	const floor = waitingLimit / crowd
	wait(victim, floor+10)
	sent += floor + 10
	if got := early.rows[fmt.Sprint("uid", victim)]; got != floor {
		t.Errorf("got %d rows of the last pod, want %d", got, floor)
	}
	waiting := 0
	for _, sum := range early.sums {
		waiting += int(sum.entries)
	}
	if len(early.sums) != waitingLimit || waiting+int(entries.Unbound) != sent {
		t.Errorf("got %d rows, %d entries that wait and %d given up, want %d rows and %d entries together",
			len(early.sums), waiting, entries.Unbound, waitingLimit, sent)
	}
}

// A limit folds health into the row that it folds bytes into.
func TestHealthIsFolded(t *testing.T) {
	limits := roomy
	limits.FlowLimit = 8 // two a pod
	p, table := healthWorld(1, limits, Optional{PeerIP: true}, nil)
	var records []HealthRecord
	for i := range 5 {
		records = append(records, connection(11, 1, 5000, fmt.Sprintf("10.1.0.%d:80", i+1), Health{Failed: 1}))
	}
	e := healthEpoch(0)
	for i := range 2 { // the first of them have sent something before
		record := Record{Key: records[i].flow().Key, Counters: Counters{100, 1}, First: at(1), Last: at(1)}
		record.Key.Point = 1
		e.Records = append(e.Records, record)
	}
	e.Totals = totalsOf(e.Records)
	next := healthEpoch(1, records...)
	publish(t, p, e, next)
	want := map[string]Health{"pod1  pod db10.1.0.1": {Failed: 1}, "pod1  pod db10.1.0.2": {Failed: 1}, "pod1  pod otherinvalid IP": {Failed: 3}}
	if diff := cmp.Diff(want, byPeer(table.Snapshot())); diff != "" {
		t.Errorf("health (-want +got):\n%s", diff)
	}
	if s := table.Snapshot(); s.FoldedFlowBytes != 0 || s.FlowSets != 2 {
		t.Errorf("got %d sets and %d bytes folded, want 2 and none", s.FlowSets, s.FoldedFlowBytes)
	}
}

// A row may begin with health: it has a place of the limit, and no series of bytes.
func TestHealthBeforeTheFirstByte(t *testing.T) {
	p, table := healthWorld(1, roomy, Optional{}, nil)
	publish(t, p, healthEpoch(0, connection(11, 1, 5000, "203.0.113.9:80", Health{Opened: 1})))
	s := table.Snapshot()
	if s.FlowSets != 1 || len(s.Flows) != 1 || len(s.Health) != 1 || len(s.Externals) != 0 {
		t.Fatalf("got %d sets, %d rows, %d of health and %d external, want one each and no external",
			s.FlowSets, len(s.Flows), len(s.Health), len(s.Externals))
	}
	if row := s.Flows[0]; row.Created != [Directions]time.Time{} || row.Counters != [Directions]Counters{} {
		t.Errorf("got %+v, want neither bytes nor a beginning of them", row)
	}
	checkIdentities(t, s)
}

// Health keeps a row, and ends with it.
func TestHealthIsRetired(t *testing.T) {
	limits := roomy
	limits.FlowIdle = 12 * time.Second
	p, table := healthWorld(1, limits, Optional{}, nil)
	one := connection(11, 1, 5000, "10.1.0.9:80", Health{Opened: 1})
	publish(t, p, healthEpoch(0, one), healthEpoch(1), healthEpoch(2, one), healthEpoch(3), healthEpoch(4))
	if got := table.Snapshot().Health; len(got) != 1 || got[0].Health.Opened != 2 || !got[0].Created.Equal(start) {
		t.Fatalf("got %+v, want 2 opened since the first", got)
	}
	publish(t, p, healthEpoch(5))
	if s := table.Snapshot(); len(s.Health) != 0 || s.FlowSets != 0 {
		t.Errorf("got %+v, want it to be retired", s.Health)
	}
	publish(t, p, healthEpoch(6, one))
	if got := table.Snapshot().Health; len(got) != 1 || got[0].Health.Opened != 1 || got[0].Created.Equal(start) {
		t.Errorf("got %+v, want it to begin anew", got)
	}
}

// randomHealth is that of some connections of pods, and of nobody.
func randomHealth(random *rand.Rand, e *Epoch, pods int) (all []HealthRecord) {
	for range random.IntN(30) {
		pod := 1 + random.IntN(pods+1)
		h := Health{Opened: random.Uint64N(2), Failed: random.Uint64N(2), RetransmittedBytes: random.Uint64N(9999)}
		h.RTT[random.IntN(RTTBuckets)], h.RTTSum = 1, random.Uint64N(1e6)
		r := connection(uint64(10*pod+random.IntN(3)), pod, uint16(random.IntN(1<<16)), fmt.Sprintf("10.1.0.%d:80", random.IntN(20)), h)
		r.First, r.Last = e.Start, e.End
		all = append(all, r)
	}
	return all
}
