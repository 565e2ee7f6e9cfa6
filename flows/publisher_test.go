// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// directory is a fixed one: 10.0.0.n is pod n of this node, 10.1.0.n of another,
// everything else external.
type directory struct{ pods map[netip.Addr]*Pod }

var remote = &Owner{Kind: PeerPod, Namespace: "far", Name: "db", Pod: "db-0", Node: "b", Zone: "z2"}
var external = &Owner{Kind: PeerExternal}

func (d *directory) Owner(q Query) *Owner {
	if pod := d.pods[q.Address]; pod != nil {
		return &Owner{Kind: PeerPod, Namespace: pod.Namespace, Name: pod.Name, Node: "a", Zone: "z1"}
	}
	if b := q.Address.As4(); b[0] == 10 {
		return remote
	}
	return external
}

func (d *directory) LocalPod(address netip.Addr, _, _ time.Time) *Pod { return d.pods[address] }
func (d *directory) Here() (string, string)                           { return "a", "z1" }

type places struct{}

func (places) Place(a netip.Addr) Place {
	return Place{Country: fmt.Sprintf("C%d", a.As4()[3]%7), City: a.String()}
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
		Binder: AddressBinder{Directory: d, Now: func() time.Time { return start }},
		Logger: slog.New(slog.DiscardHandler),
	})
	return publisher, table, d
}

func iface(n int) Interface {
	return Interface{Point: Point(n), Name: fmt.Sprint("veth", n), PeerNamespace: n,
		Attached: start, Addresses: []netip.Addr{podAddress(n)}}
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
	for seed := range uint64(40) {
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

// One pod that scans takes its quarter of the limit and not the others' places.
func TestScanningPodLeavesRoom(t *testing.T) {
	options := TableOptions{FlowLimit: 100, ExternalLimit: 100, FlowIdle: time.Hour, SeriesGrace: time.Hour}
	publisher, table, _ := world(2, options, Optional{PeerPort: true})
	e := &Epoch{Start: start, End: start.Add(time.Minute), Interfaces: []Interface{iface(1), iface(2)}}
	for port := range 500 {
		for point := range 2 {
			if point == 1 && port >= 20 {
				continue
			}
			e.Records = append(e.Records, Record{Counters: Counters{100, 1}, First: start, Last: start, Key: Key{
				Point: Point(point + 1), EtherType: EtherTypeIPv4, Protocol: 6, Source: podAddress(point + 1),
				Destination: netip.MustParseAddr("203.0.113.9"), DestinationPort: uint16(port + 1)}})
		}
	}
	if err := publisher.Publish(e); err != nil {
		t.Fatal(err)
	}
	// The first epoch waits for the binding, the rows are then all published.
	rows := map[string]int{}
	for _, s := range table.Snapshot().Flows {
		if s.Labels.PeerKind != PeerOther {
			rows[s.Pod]++
		}
	}
	if rows["pod1"] != 25 || rows["pod2"] != 20 {
		t.Errorf("rows: got %v, want pod1 25 and pod2 20", rows)
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

// A pod made again under its name goes on where the one before it ended; when
// nobody has the name any more its series end after the grace.
func TestPodMadeAgainUnderItsName(t *testing.T) {
	publisher, table, d := world(1, TableOptions{FlowLimit: 100, ExternalLimit: 100, FlowIdle: time.Hour, SeriesGrace: 5 * time.Minute}, Optional{})
	send := func(minute, point int) Counters {
		e := &Epoch{Start: start.Add(time.Duration(minute) * time.Minute)}
		e.End = e.Start.Add(time.Minute)
		if point > 0 {
			i := iface(1)
			i.Point, i.PeerNamespace = Point(point), point
			e.Interfaces = []Interface{i}
			e.Totals = []Total{{Point: Point(point), Counters: Counters{100, 1}, Unplaced: Counters{100, 1}}}
		}
		if err := publisher.Publish(e); err != nil {
			t.Fatal(err)
		}
		s := table.Snapshot()
		checkIdentities(t, s)
		if len(s.Pods) == 0 {
			return Counters{}
		}
		return s.Pods[0].Counters[Transmit]
	}
	if got, want := send(0, 7), (Counters{100, 1}); got != want {
		t.Errorf("first: got %+v, want %+v", got, want)
	}
	old := d.pods[podAddress(1)]
	d.pods[podAddress(1)] = &Pod{UID: "again", Namespace: old.Namespace, Name: old.Name}
	if got, want := send(1, 8), (Counters{200, 2}); got != want {
		t.Errorf("made again: got %+v, want %+v", got, want)
	}
	if got, want := send(2, 0), (Counters{200, 2}); got != want {
		t.Errorf("gone: got %+v, want %+v still", got, want)
	}
	if got := send(9, 0); !got.IsZero() {
		t.Errorf("after the grace: got %+v, want no series", got)
	}
}

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
