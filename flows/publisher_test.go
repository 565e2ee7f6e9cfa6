// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unique"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/effort"
)

// directory is a fixed one: 10.0.0.n is pod n of this node, 10.1.0.n of another,
// everything else external.
type directory struct {
	pods      map[netip.Addr]*Pod
	announced netip.Addr // by a pod elsewhere
}

var remote = &Owner{Kind: PeerPod, Namespace: "far", Name: "db", Pod: "db-0", Node: "b", Zone: "z2"}
var external = &Owner{Kind: PeerExternal}

func (d *directory) Owner(q Query) *Owner {
	if pod := d.pods[q.Address]; pod != nil {
		return &Owner{Kind: PeerPod, Namespace: pod.Namespace, Name: pod.Name, Node: "a", Zone: "z1"}
	}
	switch {
	case netip.MustParsePrefix("10.0.0.0/8").Contains(q.Address):
		return remote
	case q.Address == d.announced && q.Address.IsValid():
		return &Owner{Kind: PeerPod, Name: "liar", Announced: true}
	}
	return external
}

func (d *directory) LocalPod(address netip.Addr, _, _ time.Time) *Pod { return d.pods[address] }
func (d *directory) Here() (string, string)                           { return "a", "z1" }

type places struct{}

func (places) Handle(a netip.Addr) unique.Handle[Place] {
	return unique.Make(Place{Country: fmt.Sprintf("C%d", a.As16()[15]%7), City: a.String()})
}

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func podAddress(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }

// world makes a publisher over n pods whose identity is known.
func world(n int, options TableOptions, optional Optional) (*Publisher, *Table, *directory) {
	d := &directory{pods: make(map[netip.Addr]*Pod)}
	for i := 1; i <= n; i++ {
		d.pods[podAddress(i)] = &Pod{UID: fmt.Sprint("uid", i), Namespace: "ns", Name: fmt.Sprint("pod", i)}
	}
	table := NewTable(options)
	publisher := NewPublisher(PublisherOptions{
		Table: table, Directory: d, Places: places{}, Optional: optional,
		Binder: AddressBinder{Directory: d, Now: func() time.Time { return start.Add(time.Hour) }},
		Logger: slog.New(slog.DiscardHandler),
	})
	return publisher, table, d
}

func iface(n int) Interface {
	return Interface{Point: Point(n), Name: fmt.Sprint("veth", n), PeerNamespace: n,
		Attached: start, Addresses: []netip.Addr{podAddress(n)}}
}

// roomy are options that fold and retire nothing.
var roomy = TableOptions{FlowLimit: 100, ExternalLimit: 100, FlowIdle: time.Hour, SeriesGrace: time.Hour}

// epochOf returns the epoch of 5 s with that number.
func epochOf(number int, interfaces []Interface, totals ...Total) *Epoch {
	begin := start.Add(time.Duration(number) * 5 * time.Second)
	return &Epoch{Number: uint64(number), Start: begin, End: begin.Add(5 * time.Second), Interfaces: interfaces, Totals: totals}
}

// unplaced is a total that is in no flow.
func unplaced(point Point, bytes uint64) Total {
	return Total{Point: point, Counters: Counters{bytes, 1}, Unplaced: Counters{bytes, 1}}
}

func publish(t *testing.T, p *Publisher, epochs ...*Epoch) {
	t.Helper()
	for _, e := range epochs {
		if err := p.Publish(e); err != nil {
			t.Fatal(err)
		}
	}
}

// checkSent checks the bytes that each pod transmitted, by its name.
func checkSent(t *testing.T, table *Table, want map[string]uint64) {
	t.Helper()
	s, got := table.Snapshot(), map[string]uint64{}
	for _, pod := range s.Pods {
		got[pod.Pod] = pod.Counters[Transmit].Bytes
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("bytes transmitted (-want +got):\n%s", diff)
	}
	checkIdentities(t, s)
}

// traffic returns a random epoch over n pods, whose flows and totals agree.
func traffic(random *rand.Rand, number, n int) *Epoch {
	e := &Epoch{Start: start.Add(time.Duration(number) * time.Minute)}
	e.End = e.Start.Add(time.Minute)
	for i := 1; i <= n; i++ {
		e.Interfaces = append(e.Interfaces, iface(i))
		for d := range Direction(Directions) {
			total := Total{Point: Point(i), Direction: d,
				Residue:  Counters{random.Uint64N(3) * 100, 1},
				Unplaced: Counters{random.Uint64N(3) * 10, 1},
				Seeded:   Counters{random.Uint64N(2) * 7, 1}}
			total.Counters.Add(total.Residue)
			total.Counters.Add(total.Unplaced)
			for range random.IntN(60) {
				r := randomRecord(random, Point(i), d, e)
				total.Counters.Add(r.Counters)
				e.Records = append(e.Records, r)
			}
			e.Totals = append(e.Totals, total)
		}
	}
	e.Health = randomHealth(random, e, n)
	return e
}

func randomRecord(random *rand.Rand, point Point, d Direction, e *Epoch) Record {
	peer := [][4]byte{
		{10, 0, 0, byte(random.IntN(10))}, {10, 1, 0, byte(random.IntN(10))},
		{203, 0, 113, byte(random.IntN(256))},
	}[random.IntN(3)]
	k := Key{Point: point, Direction: d, EtherType: EtherTypeIPv4,
		Protocol: []uint8{6, 17, 1, 47}[random.IntN(4)],
		Source:   podAddress(int(point)), Destination: netip.AddrFrom4(peer),
		SourcePort: uint16(random.IntN(1 << 16)), DestinationPort: uint16(random.IntN(1 << 16))}
	if d == Receive {
		k.Source, k.Destination = k.Destination, k.Source
	}
	if random.IntN(20) == 0 {
		k = Key{Point: point, Direction: d, EtherType: 0x0806}
	}
	return Record{Key: k, Counters: Counters{random.Uint64N(1e6), 1 + random.Uint64N(9)}, First: e.Start, Last: e.End}
}

type podDirection struct {
	pod       string
	direction Direction
}

func sum[L any](all []Series[L], into map[podDirection]Counters, keep func(L) bool) {
	for _, s := range all {
		for d := range Direction(Directions) {
			if keep == nil || keep(s.Labels) {
				c := into[podDirection{s.Pod, d}]
				c.Add(s.Counters[d])
				into[podDirection{s.Pod, d}] = c
			}
		}
	}
}

// checkIdentities checks those of a snapshot that a user can check of a scrape.
func checkIdentities(t *testing.T, s *Snapshot) {
	t.Helper()
	pods, parts := map[podDirection]Counters{}, map[podDirection]Counters{}
	sum(s.Pods, pods, nil)
	sum(s.Flows, parts, nil)
	sum(s.Retired, parts, nil)
	outside, inFlows := map[podDirection]Counters{}, map[podDirection]Counters{}
	sum(s.Externals, outside, nil)
	sum(s.RetiredExternals, outside, nil)
	sum(s.Flows, inFlows, func(l FlowLabels) bool { return l.PeerKind == PeerExternal })
	sum(s.Retired, inFlows, func(k PeerKind) bool { return k == PeerExternal })
	for key, want := range pods {
		if parts[key] != want {
			t.Errorf("%v: flows and retired: got %+v, want the pod's %+v", key, parts[key], want)
		}
		if outside[key] != inFlows[key] {
			t.Errorf("%v: external and retired: got %+v, want the flows' %+v", key, outside[key], inFlows[key])
		}
	}
}

func TestIdentitiesHoldForAnyTraffic(t *testing.T) {
	for seed := range effort.Choose(40, uint64(10)) {
		random := rand.New(rand.NewPCG(seed, 1))
		options := TableOptions{FlowLimit: random.IntN(80), ExternalLimit: random.IntN(40),
			FlowIdle: time.Duration(1+random.IntN(4)) * time.Minute, SeriesGrace: 5 * time.Minute}
		optional := Optional{PeerIP: seed%2 == 0, PeerPort: seed%3 == 0, City: seed%5 == 0, IP: seed%7 == 0}
		publisher, table, _ := world(4, options, optional)
		var want Counters
		for number := range 12 {
			e := traffic(random, number, 4)
			for _, total := range e.Totals {
				want.Add(total.Counters)
				want.Add(total.Seeded)
			}
			if err := publisher.Publish(e); err != nil {
				t.Fatal(err)
			}
			s := table.Snapshot()
			checkIdentities(t, s)
			var got Counters
			for _, p := range s.Pods {
				got.Add(p.Counters[Transmit])
				got.Add(p.Counters[Receive])
			}
			if got != want {
				t.Fatalf("seed %d epoch %d: pods: got %+v, want %+v", seed, number, got, want)
			}
			if s.FlowSets > options.FlowLimit || s.ExternalSets > options.ExternalLimit {
				t.Fatalf("seed %d: %d and %d label sets, want at most %d and %d",
					seed, s.FlowSets, s.ExternalSets, options.FlowLimit, options.ExternalLimit)
			}
		}
	}
}

// Counters wait for an identity that comes late, and then are published whole.
func TestLateBinding(t *testing.T) {
	publisher, table, d := world(1, TableOptions{FlowLimit: 100, ExternalLimit: 100, FlowIdle: time.Hour, SeriesGrace: time.Hour}, Optional{})
	pod := d.pods[podAddress(1)]
	delete(d.pods, podAddress(1))
	var want Counters
	random := rand.New(rand.NewPCG(1, 1))
	for number := range 3 {
		e := traffic(random, number, 1)
		for _, total := range e.Totals {
			want.Add(total.Counters)
			want.Add(total.Seeded)
		}
		if number == 2 {
			d.pods[podAddress(1)] = pod
		}
		if err := publisher.Publish(e); err != nil {
			t.Fatal(err)
		}
		s := table.Snapshot()
		if number < 2 {
			if len(s.Pods) != 0 || publisher.Stats().UnboundBytes != want.Bytes {
				t.Fatalf("unbound: got %d pods and %d bytes, want none and %d", len(s.Pods), publisher.Stats().UnboundBytes, want.Bytes)
			}
			continue
		}
		checkIdentities(t, s)
		var got Counters
		for _, p := range s.Pods {
			got.Add(p.Counters[Transmit])
			got.Add(p.Counters[Receive])
		}
		if got != want || publisher.Stats().UnboundBytes != 0 {
			t.Errorf("bound: got %+v and %d bytes unbound, want %+v and none", got, publisher.Stats().UnboundBytes, want)
		}
	}
}

// An ifindex that comes back between two epochs is another interface, and the
// pod of the one before gets none of its bytes.
func TestIfindexComesBackAsAnotherInterface(t *testing.T) {
	publisher, table, d := world(2, roomy, Optional{})
	old, young := iface(1), iface(2)
	old.Point, young.Point = 7, 7
	young.Attached = start.Add(8 * time.Second)
	publish(t, publisher, epochOf(0, []Interface{old}, unplaced(7, 100)))
	old.Gone = start.Add(6 * time.Second)
	publish(t, publisher, epochOf(1, []Interface{old}, unplaced(7, 50)), epochOf(2, []Interface{young}, unplaced(7, 5000)))
	checkSent(t, table, map[string]uint64{"pod1": 150, "pod2": 5000})
	if got, want := publisher.Pods()[7], d.pods[podAddress(2)]; got != want {
		t.Errorf("pod behind the point: got %+v, want %+v", got, want)
	}
}

// What waited for the pod of an interface whose ifindex came back still finds
// it, even if nobody said that the interface had vanished.
func TestIfindexComesBackWhileUnbound(t *testing.T) {
	publisher, table, d := world(2, roomy, Optional{})
	pod := d.pods[podAddress(1)]
	delete(d.pods, podAddress(1))
	old, young := iface(1), iface(2)
	old.Point, young.Point = 7, 7
	young.Attached = start.Add(8 * time.Second)
	publish(t, publisher, epochOf(0, []Interface{old}, unplaced(7, 100)), epochOf(2, []Interface{young}, unplaced(7, 5000)))
	checkSent(t, table, map[string]uint64{"pod2": 5000})
	if got := publisher.Stats().UnboundBytes; got != 100 {
		t.Errorf("bytes that wait: got %d, want 100", got)
	}
	d.pods[podAddress(1)] = pod
	publish(t, publisher, epochOf(3, []Interface{young}))
	checkSent(t, table, map[string]uint64{"pod1": 100, "pod2": 5000})
}

// What lands on no series is counted by why.
func TestLostBytes(t *testing.T) {
	publisher, table, _ := world(1, roomy, Optional{})
	stranger := unplaced(8, 30)
	stranger.Seeded = Counters{12, 1}
	publish(t, publisher, epochOf(0, []Interface{anonymous(1, -1)}, unplaced(1, 100), stranger),
		epochOf(1, []Interface{gone(anonymous(1, -1), 6*time.Second)}), epochOf(2, nil))
	check := func(when string, unbound, lost uint64) {
		t.Helper()
		got := publisher.Stats()
		want := Stats{UnboundBytes: unbound, LostUnboundBytes: lost, LostNoInterfaceBytes: 42, UnplacedBytes: got.UnplacedBytes, LastEpoch: got.LastEpoch}
		if got != want {
			t.Errorf("%s: got %+v, want %+v", when, got, want)
		}
	}
	check("while it may become known", 100, 0)
	publish(t, publisher, epochOf(200, nil))
	check("after the grace", 0, 100)
	checkSent(t, table, map[string]uint64{})
}
