// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/effort"
)

// A node on which pods come and go, with ifindexes and namespace ids that come
// back at once and identities that come late or never. Each of a few pod names
// has bytes of its own: those of name k are multiples of 65536^k, fewer than
// 65536 of them, so that any sum tells what came from which name's interfaces.
const nameCount = 4

type node struct {
	directory
	random    *rand.Rand
	now       time.Time
	sandboxes []*sandbox
	metered   []*metered
	known     map[netip.Addr]time.Time // when the identity of an address arrives
	freed     map[int]time.Time        // when a namespace id was last given up
	uids      int
	fed       uint64 // sum of all totals
}

// sandbox is one life of a pod.
type sandbox struct {
	name    int
	pod     *Pod
	address netip.Addr
	// namespace is free for others from ended on.
	namespace int
	ended     bool
}

type metered struct {
	Interface
	of *sandbox
	// gone is when it vanishes, rest how many epochs show it after that.
	gone time.Time
	rest int
}

// LocalPod implements [Directory].
func (n *node) LocalPod(address netip.Addr, _, _ time.Time) *Pod {
	if at, ok := n.known[address]; !ok || n.now.Before(at) {
		return nil
	}
	return n.pods[address]
}

// epoch lets a minute pass.
func (n *node) epoch(number int) *Epoch {
	e := &Epoch{Number: uint64(number), Start: start.Add(time.Duration(number) * time.Minute)}
	e.End = e.Start.Add(time.Minute)
	n.now = e.End
	n.metered = slices.DeleteFunc(n.metered, func(m *metered) bool {
		m.rest--
		return !m.gone.IsZero() && m.rest < 0
	})
	for _, s := range n.sandboxes {
		if n.random.IntN(6) == 0 {
			n.end(s, e)
		}
	}
	n.sandboxes = slices.DeleteFunc(n.sandboxes, func(s *sandbox) bool { return s.ended })
	for range n.random.IntN(3) {
		n.begin(e)
	}
	for _, s := range n.sandboxes {
		if n.random.IntN(8) == 0 {
			n.plug(s, e, nil)
		}
	}
	for _, m := range n.metered {
		n.show(m, e)
	}
	return e
}

// end ends a sandbox. Its interfaces may outlive its namespace's id for a moment,
// and the epoch.
func (n *node) end(s *sandbox, e *Epoch) {
	at := e.End.Add(-time.Duration(n.random.IntN(8)) * time.Second)
	s.ended, n.freed[s.namespace] = true, at
	for _, m := range n.metered {
		if m.of == s && m.gone.IsZero() {
			m.gone, m.rest = at.Add(time.Duration(n.random.IntN(4))*time.Second), n.random.IntN(3)
		}
	}
}

// begin starts a pod under one of the names.
func (n *node) begin(e *Epoch) {
	n.uids++
	s := &sandbox{name: n.random.IntN(nameCount), address: netip.AddrFrom4([4]byte{10, 0, byte(n.uids >> 8), byte(n.uids)})}
	s.pod = &Pod{UID: fmt.Sprint("uid", n.uids), Namespace: "ns", Name: fmt.Sprint("pod", s.name), Container: fmt.Sprint("c", n.random.IntN(2))}
	for slices.ContainsFunc(n.sandboxes, func(o *sandbox) bool { return o.namespace == s.namespace }) {
		s.namespace++
	}
	n.sandboxes = append(n.sandboxes, s)
	n.pods[s.address] = s.pod
	switch n.random.IntN(4) {
	case 0: // never
	case 1:
		n.known[s.address] = e.Start.Add(time.Duration(n.random.IntN(20)) * time.Minute)
	default:
		n.known[s.address] = e.Start
	}
	var addresses []netip.Addr
	if n.random.IntN(4) > 0 {
		addresses = []netip.Addr{s.address}
	}
	n.plug(s, e, addresses)
}

// plug gives a sandbox an interface with the lowest free ifindex.
func (n *node) plug(s *sandbox, e *Epoch, addresses []netip.Addr) {
	m := &metered{of: s, Interface: Interface{Point: 1, PeerNamespace: s.namespace, Addresses: addresses,
		Attached: e.End.Add(-time.Duration(n.random.IntN(8)) * time.Second)}}
	if freed := n.freed[s.namespace]; m.Attached.Before(freed) {
		m.Attached = freed
	}
	for slices.ContainsFunc(n.metered, func(o *metered) bool { return o.Point == m.Point }) {
		m.Point++
	}
	m.Name = fmt.Sprint("veth", m.Point)
	n.metered = append(n.metered, m)
}

// show adds an interface and its traffic to an epoch.
func (n *node) show(m *metered, e *Epoch) {
	first := !m.Attached.Before(e.Start)
	if !m.gone.IsZero() && !m.gone.After(e.End) {
		m.Gone = m.gone
		if n.random.IntN(3) == 0 {
			m.PeerNamespace = -1
		}
	}
	e.Interfaces = append(e.Interfaces, m.Interface)
	if n.random.IntN(3) == 0 {
		return // quiet
	}
	for d := range Direction(Directions) {
		total := Total{Point: m.Point, Direction: d, Residue: n.some(m), Unplaced: n.some(m)}
		if first {
			total.Seeded = n.some(m)
		}
		total.Counters.Add(total.Residue)
		total.Counters.Add(total.Unplaced)
		for range n.random.IntN(4) {
			r := randomRecord(n.random, m.Point, d, e)
			if d == Transmit && r.Key.IsIP() {
				r.Key.Source = m.of.address
			}
			r.Counters = n.some(m)
			total.Counters.Add(r.Counters)
			e.Records = append(e.Records, r)
		}
		n.fed += total.Bytes + total.Seeded.Bytes
		e.Totals = append(e.Totals, total)
	}
}

// some returns a few bytes of the interface's pod name.
func (n *node) some(m *metered) Counters {
	c := Counters{Bytes: n.random.Uint64N(4) << (16 * m.of.name)}
	if c.Bytes > 0 {
		c.Packets = 1
	}
	return c
}

// lives checks a publisher against the node, epoch by epoch.
type lives struct {
	*node
	publisher *Publisher
	table     *Table
	before    *Snapshot
	ended     uint64 // bytes of series that ended
	waited    bool
}

func newLives(seed uint64) *lives {
	random := rand.New(rand.NewPCG(seed, 2))
	n := &node{random: random, directory: directory{pods: make(map[netip.Addr]*Pod)}, known: make(map[netip.Addr]time.Time), freed: make(map[int]time.Time)}
	table := NewTable(TableOptions{FlowLimit: random.IntN(60), ExternalLimit: random.IntN(30),
		FlowIdle:    time.Duration(1+random.IntN(4)) * time.Minute,
		SeriesGrace: time.Duration(random.IntN(8)) * time.Minute, LinkLocalPeers: seed%11 == 0})
	return &lives{node: n, table: table, before: table.Snapshot(), publisher: NewPublisher(PublisherOptions{
		Table: table, Directory: n, Places: places{}, Logger: slog.New(slog.DiscardHandler),
		Binder:   AddressBinder{Directory: n, Now: func() time.Time { return n.now }},
		Optional: Optional{PeerIP: seed%2 == 0, PeerPort: seed%3 == 0, City: seed%5 == 0, IP: seed%7 == 0, LinkLocalPeers: seed%11 == 0},
	})}
}

// checkBytes checks that all bytes are somewhere, and none at another pod's name.
func (l *lives) checkBytes(t *testing.T, s *Snapshot) {
	t.Helper()
	series := make(map[string]uint64)
	for _, pod := range s.Pods {
		bytes := pod.Counters[Transmit].Bytes + pod.Counters[Receive].Bytes
		series[pod.Pod] = bytes
		for k := range nameCount {
			if strangers := bytes >> (16 * k) & 0xffff; strangers > 0 && pod.Pod != fmt.Sprint("pod", k) {
				t.Errorf("%s: got %d × 65536^%d bytes, want none of pod%d", pod.Pod, strangers, k, k)
			}
		}
	}
	for _, pod := range l.before.Pods {
		if _, goesOn := series[pod.Pod]; !goesOn {
			l.ended += pod.Counters[Transmit].Bytes + pod.Counters[Receive].Bytes
		}
	}
	stats := l.publisher.Stats()
	got := stats.UnboundBytes + stats.LostUnboundBytes + l.ended
	for _, bytes := range series {
		got += bytes
	}
	if got != l.fed || stats.LostNoInterfaceBytes != 0 {
		t.Errorf("series, ended, waiting and lost: got %#x, want %#x; without interface %d, want 0", got, l.fed, stats.LostNoInterfaceBytes)
	}
	l.waited = l.waited || stats.UnboundBytes > 0
}

// checkPods checks which pods the interfaces are bound to, and that these have
// series, though they may be quiet.
func (l *lives) checkPods(t *testing.T, s *Snapshot) {
	t.Helper()
	pods := l.publisher.Pods()
	for _, m := range l.metered {
		got, want := pods[m.Point], m.of.pod
		if got == nil && (m.Addresses == nil || l.LocalPod(m.of.address, m.Attached, l.now) == nil) {
			continue
		}
		if got != want {
			t.Errorf("interface %d: got pod %+v, want %+v", m.Point, got, want)
		}
		if !slices.ContainsFunc(s.Pods, func(pod Series[NoLabels]) bool { return pod.Pod == want.Name }) {
			t.Errorf("%s: got no series, want one", want.Name)
		}
	}
}

// checkOnward checks that no series went down.
func checkOnward[L comparable](t *testing.T, before, after []Series[L]) {
	t.Helper()
	type id struct {
		pod    string
		labels L
	}
	old := make(map[id]Series[L])
	for _, s := range before {
		old[id{s.Pod, s.Labels}] = s
	}
	for _, s := range after {
		for d := range s.Counters {
			was, is := old[id{s.Pod, s.Labels}].Counters[d], s.Counters[d]
			if is.Bytes < was.Bytes || is.Packets < was.Packets {
				t.Errorf("%s %+v: got %+v, want no less than %+v", s.Pod, s.Labels, is, was)
			}
		}
	}
}

// checkLimits checks that label sets are counted and limited.
func (l *lives) checkLimits(t *testing.T, s *Snapshot) {
	t.Helper()
	flowSets, externalSets := 0, 0
	for _, flow := range s.Flows {
		flowSets += count(flow.Labels.Peer != folded && !flow.Labels.PeerKind.bounded(l.table.options.LinkLocalPeers))
	}
	for _, external := range s.Externals {
		externalSets += count(external.Labels.Country != folded)
	}
	if s.FlowSets != flowSets || s.ExternalSets != externalSets {
		t.Errorf("label sets: got %d and %d, want %d and %d", s.FlowSets, s.ExternalSets, flowSets, externalSets)
	}
	if o := l.table.options; flowSets > o.FlowLimit || externalSets > o.ExternalLimit {
		t.Errorf("label sets: got %d and %d, want at most %d and %d", flowSets, externalSets, o.FlowLimit, o.ExternalLimit)
	}
}

func (l *lives) check(t *testing.T) {
	t.Helper()
	s := l.table.Snapshot()
	checkIdentities(t, s)
	l.checkBytes(t, s)
	l.checkPods(t, s)
	checkOnward(t, l.before.Pods, s.Pods)
	checkOnward(t, l.before.Flows, s.Flows)
	checkOnward(t, l.before.Retired, s.Retired)
	checkOnward(t, l.before.Externals, s.Externals)
	checkOnward(t, l.before.RetiredExternals, s.RetiredExternals)
	l.checkLimits(t, s)
	l.before = s
}

// Whatever comes and goes, each byte is on one series of its own pod, waits for
// it, or is lost and said to be.
func TestPodsComeAndGo(t *testing.T) {
	var waited, lost, ended int
	seeds := effort.Choose(200, 40)
	for seed := range uint64(seeds) {
		l := newLives(seed)
		for number := range 60 {
			publish(t, l.publisher, l.epoch(number))
			if l.check(t); t.Failed() {
				t.Fatalf("seed %d, epoch %d", seed, number)
			}
		}
		waited += count(l.waited)
		lost += count(l.publisher.Stats().LostUnboundBytes > 0)
		ended += count(l.ended > 0)
	}
	if want := seeds / 2; waited < want || lost < want || ended < want {
		t.Errorf("got %d seeds that waited, %d that lost, %d of which series ended, want %d of each", waited, lost, ended, want)
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
