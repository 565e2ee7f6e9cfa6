// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shop is a directory with the Service web at 10.96.0.10, and with what may turn out
// to be behind it.
type shop struct{ cheapDirectory }

var (
	webService = &Owner{Kind: PeerService, Namespace: "shop", Name: "web", Service: "web"}
	webOwners  = map[netip.Addr]*Owner{
		netip.MustParseAddr("10.96.0.10"): webService,
		netip.MustParseAddr("10.96.0.11"): {Kind: PeerService, Namespace: "shop", Name: "api", Service: "api"},
		netip.MustParseAddr("10.1.0.1"):   {Kind: PeerPod, Namespace: "shop", Name: "blue", WorkloadType: "deployment", Pod: "blue-0", Node: "a"},
		netip.MustParseAddr("10.1.0.2"):   {Kind: PeerPod, Namespace: "shop", Name: "green", Pod: "green-0", Node: "b", Zone: "z1"},
		netip.MustParseAddr("10.1.0.3"):   {Kind: PeerUnattributed},
		netip.MustParseAddr("10.1.0.4"):   {Kind: PeerPod, Namespace: "far", Name: "other"},
		netip.MustParseAddr("10.1.0.5"):   {Kind: PeerNode, Name: "n"},
	}
)

func (shop) Owner(q Query) *Owner {
	if owner := webOwners[q.Address]; owner != nil {
		return owner
	}
	return &Owner{Kind: PeerCluster}
}

// connTable is a translator that knows what it is told.
type connTable struct {
	backends map[Connection]Backend
	err      error
	asked    int
	slow     func()
}

func (c *connTable) Backend(k Connection) (Backend, bool, error) {
	c.asked++
	if c.slow != nil {
		c.slow()
	}
	b, found := c.backends[k]
	return b, found, c.err
}

// translated is a publisher of one pod whose connections a table knows. An epoch
// lasts 5 s, and is published 5 s after its end.
type translated struct {
	*Publisher
	table  *Table
	conns  *connTable
	now    time.Time
	number int
	log    strings.Builder
}

func newTranslated(options Optional) *translated {
	d := &shop{}
	d.pods[1] = Pod{UID: "uid", Namespace: "shop", Name: "client"}
	t := &translated{table: NewTable(roomy), conns: &connTable{backends: make(map[Connection]Backend)}}
	t.Publisher = NewPublisher(PublisherOptions{
		Table: t.table, Directory: d, Optional: options, Translator: t.conns,
		Binder: AddressBinder{Directory: d, Now: func() time.Time { return start }},
		Logger: slog.New(slog.NewTextHandler(&t.log, nil)),
	})
	t.attribution.translation.now = func() time.Time { return t.now }
	return t
}

// conn is the client's connection from a port.
func conn(port uint16) Connection {
	return Connection{Protocol: ProtocolTCP, Client: netip.AddrPortFrom(podAddress(1), port),
		Service: netip.MustParseAddrPort("10.96.0.10:80")}
}

// to makes the table say that the connection goes to an address, at port 8080; to
// nowhere if that is empty.
func (t *translated) to(port uint16, address string) {
	delete(t.conns.backends, conn(port))
	if address != "" {
		t.conns.backends[conn(port)] = Backend{Address: netip.AddrPortFrom(netip.MustParseAddr(address), 8080)}
	}
}

// flow is 100 bytes of the client's, from first to last after the beginning of the
// epoch that comes next.
func (t *translated) flow(port uint16, first, last time.Duration) Record {
	begin := start.Add(time.Duration(t.number) * 5 * time.Second)
	return Record{Counters: Counters{100, 1}, First: begin.Add(first), Last: begin.Add(last), Key: Key{
		Point: 1, EtherType: EtherTypeIPv4, Protocol: ProtocolTCP,
		Source: podAddress(1), Destination: netip.MustParseAddr("10.96.0.10"), SourcePort: port, DestinationPort: 80}}
}

// epoch publishes the next epoch and returns the bytes it added to each peer.
func (t *translated) epoch(tb testing.TB, records ...Record) map[string]uint64 {
	tb.Helper()
	before := t.peers()
	e := epochOf(t.number, []Interface{iface(1)}, totalsOf(records)...)
	e.Records = records
	t.number++
	t.now = e.End.Add(5*time.Second - time.Millisecond)
	if err := t.Publish(e); err != nil {
		tb.Fatal(err)
	}
	after := t.peers()
	for peer, bytes := range before {
		if after[peer] -= bytes; after[peer] == 0 {
			delete(after, peer)
		}
	}
	return after
}

func (t *translated) peers() map[string]uint64 {
	sums := make(map[string]uint64)
	for _, f := range t.table.Snapshot().Flows {
		name := f.Labels.PeerKind.String() + " " + f.Labels.Peer + " " + f.Labels.Service
		sums[name] += f.Counters[Transmit].Bytes + f.Counters[Receive].Bytes
	}
	return sums
}

func checkPeers(t *testing.T, what string, got map[string]uint64, want string) {
	t.Helper()
	if diff := cmp.Diff(map[string]uint64{want: 100}, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const (
	toBlue    = "pod blue web"
	toGreen   = "pod green web"
	toService = "service web web"
)

// The peer of a flow to a Service is its backend if that is certain, else the Service.
func TestBackendIsThePeer(t *testing.T) {
	for _, c := range []struct{ name, backend, want string }{
		{"known", "10.1.0.1", toBlue},
		{"not in the table", "", toService},
		{"address changed hands", "10.1.0.3", toService},
		{"address of nobody", "10.1.0.9", toService},
		{"of another namespace", "10.1.0.4", toService},
		{"no pod", "10.1.0.5", toService},
		{"not translated", "10.96.0.10", toService},
		{"another Service", "10.96.0.11", toService},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newTranslated(Optional{})
			p.to(1000, c.backend)
			checkPeers(t, "peers", p.epoch(t, p.flow(1000, time.Second, 2*time.Second)), c.want)
			checkIdentities(t, p.table.Snapshot())
		})
	}
}

func TestLabelsOfABackend(t *testing.T) {
	p := newTranslated(Optional{PeerPod: true, PeerIP: true, PeerPort: true})
	p.to(1000, "10.1.0.1")
	p.epoch(t, p.flow(1000, 0, time.Second))
	want := FlowLabels{
		PeerKind: PeerPod, PeerNamespace: "shop", Peer: "blue", PeerWorkloadType: "deployment", Service: "web",
		Locality: LocalitySameNode, Protocol: ProtoTCP,
		PeerPod: "blue-0", PeerIP: netip.MustParseAddr("10.1.0.1"), PeerPort: 8080,
	}
	if diff := cmp.Diff(want, p.table.Snapshot().Flows[0].Labels, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

// Both directions of a connection take one lookup, what has no ports none.
func TestLookupsAreByConnection(t *testing.T) {
	p := newTranslated(Optional{})
	p.to(1000, "10.1.0.1")
	there := p.flow(1000, 0, time.Second)
	back, ping, fragment := there, there, there
	k := &back.Key
	k.Direction, k.Source, k.Destination = Receive, k.Destination, k.Source
	k.SourcePort, k.DestinationPort = k.DestinationPort, k.SourcePort
	ping.Key.Protocol, ping.Key.SourcePort, ping.Key.DestinationPort = ProtocolICMP, 0, 8<<8
	fragment.Key.Protocol, fragment.Key.SourcePort, fragment.Key.DestinationPort = ProtocolUDP, 0, 0
	want := map[string]uint64{toBlue: 200, toService: 200}
	if diff := cmp.Diff(want, p.epoch(t, there, back, ping, fragment)); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
	if p.conns.asked != 1 || p.Lookups() != (Lookups{Found: 1}) {
		t.Errorf("lookups: got %d and %+v, want one that found it", p.conns.asked, p.Lookups())
	}
}

// A client that uses its port again, for another backend, moves no byte of the
// connection before to that.
func TestPortUsedAgain(t *testing.T) {
	const early, late = time.Second, 4 * time.Second
	end := 5*time.Second - time.Millisecond // when the lookup is made that falls in an epoch
	for _, c := range []struct {
		name   string
		tables []string              // at each drain, which falls in the next epoch
		flows  [][2]time.Duration    // of each epoch
		since  map[int]time.Duration // of the backend at a drain, after the first epoch's beginning
		want   []string
	}{
		{name: "after the second epoch", tables: []string{"10.1.0.1", "10.1.0.2"},
			flows: [][2]time.Duration{{early, late}, {early, late}}, want: []string{toBlue, toBlue}},
		{name: "within the third", tables: []string{"10.1.0.1", "10.1.0.2", "10.1.0.2", "10.1.0.2"},
			flows: [][2]time.Duration{{early, late}, {early, late}, {early, late}, {early, late}},
			want:  []string{toBlue, toBlue, toService, toGreen}},
		{name: "after the lookup, before the end", tables: []string{"10.1.0.1", "10.1.0.2"},
			flows: [][2]time.Duration{{early, late}, {early, end + time.Microsecond}}, want: []string{toBlue, toService}},
		{name: "by a flow that began after the lookup", tables: []string{"10.1.0.1", "10.1.0.2"},
			flows: [][2]time.Duration{{early, late}, {end + time.Microsecond, end + time.Microsecond}},
			want:  []string{toBlue, toGreen}},
		{name: "when nothing was there before", tables: []string{"", "10.1.0.2"},
			flows: [][2]time.Duration{{early, late}, {early, late}}, want: []string{toService, toService}},
		{name: "after it was reset", tables: []string{"10.1.0.1", ""},
			flows: [][2]time.Duration{{early, late}, {early, late}}, want: []string{toBlue, toBlue}},
		{name: "since the flow began, as the node says", tables: []string{"10.1.0.1"},
			flows: [][2]time.Duration{{early, late}}, since: map[int]time.Duration{0: 2 * time.Second}, want: []string{toService}},
		{name: "before the flow began, as the node says", tables: []string{"10.1.0.1"},
			flows: [][2]time.Duration{{early, late}}, since: map[int]time.Duration{0: early}, want: []string{toBlue}},
		{name: "in the future, as the clock was set back", tables: []string{"10.1.0.1"},
			flows: [][2]time.Duration{{early, late}}, since: map[int]time.Duration{0: 2 * time.Hour}, want: []string{toBlue}},
		{name: "perhaps, in a long time without an agent", tables: []string{"10.1.0.1"},
			flows: [][2]time.Duration{{-2 * time.Minute, late}}, want: []string{toService}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newTranslated(Optional{})
			for n, flow := range c.flows {
				p.to(1000, c.tables[n])
				if since, is := c.since[n]; is {
					p.conns.backends[conn(1000)] = Backend{netip.MustParseAddrPort(c.tables[n] + ":1"), start.Add(since)}
				}
				checkPeers(t, c.name, p.epoch(t, p.flow(1000, flow[0], flow[1])), c.want[n])
			}
		})
	}
}

// A drain looks up so many at most, and so do many drains in one second.
func TestLookupsAreBounded(t *testing.T) {
	p := newTranslated(Optional{})
	var records []Record
	for port := range uint16(lookupLimit + 100) {
		p.to(1+port, "10.1.0.1")
		records = append(records, p.flow(1+port, 0, time.Second))
	}
	want := map[string]uint64{toBlue: lookupLimit * 100, toService: 100 * 100}
	if diff := cmp.Diff(want, p.epoch(t, records...)); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
	if got, want := p.Lookups(), (Lookups{Found: lookupLimit, Skipped: 100}); got != want {
		t.Errorf("lookups: got %+v, want %+v", got, want)
	}
	if got := len(p.attribution.translation.recent); got != lookupLimit {
		t.Errorf("kept: got %d, want %d", got, lookupLimit)
	}
	soon := epochOf(0, []Interface{iface(1)}, totalsOf(records)...)
	soon.Records, soon.End = records, soon.End.Add(500*time.Millisecond)
	publish(t, p.Publisher, soon)
	if got, want := p.conns.asked, lookupLimit+lookupLimit/2; got != want {
		t.Errorf("with a drain half a second later: got %d lookups, want %d", got, want)
	}
	p.epoch(t)
	if got := len(p.attribution.translation.recent); got != 0 {
		t.Errorf("kept when no flow is left: got %d, want 0", got)
	}
}

func TestLookupsTakeNoLongerThan(t *testing.T) {
	p := newTranslated(Optional{})
	p.conns.slow = func() { p.now = p.now.Add(lookupTime/2 + 1) }
	var records []Record
	for port := range uint16(10) {
		records = append(records, p.flow(1000+port, 0, 0))
	}
	p.epoch(t, records...)
	// Four take longer than twice the time that the floor has.
	if got, want := p.Lookups(), (Lookups{Missing: 4, Skipped: 6}); got != want {
		t.Errorf("lookups: got %+v, want %+v", got, want)
	}
}

// Each interface has its floor of lookups, however many others make and however long these take.
func TestFloorOfLookups(t *testing.T) {
	for name, each := range map[string]time.Duration{"many": 0, "slow": 2 * lookupTime / lookupLimit} {
		t.Run(name, func(t *testing.T) {
			now := start
			conns := &connTable{slow: func() { now = now.Add(each) }}
			lookups := newTranslation(conns, slog.New(slog.DiscardHandler))
			lookups.now = func() time.Time { return now }
			e := epochOf(0, nil)
			for pod := 1; pod <= crowd; pod++ {
				e.Interfaces = append(e.Interfaces, iface(pod))
			}
			lookups.begin(e)
			look := func(pod int, connections uint16) (made int) {
				before := conns.asked
				for port := range connections {
					lookups.backend(&Record{First: e.Start, Last: e.End, Key: Key{
						Point: Point(pod), EtherType: EtherTypeIPv4, Protocol: ProtocolTCP, Source: podAddress(pod), SourcePort: port + 1,
						Destination: netip.MustParseAddr("10.96.0.10"), DestinationPort: 80}})
				}
				return conns.asked - before
			}
			for pod := 1; pod < victim; pod++ {
				look(pod, 1000)
			}
			if got, want := look(victim, 1000), lookupLimit/2/crowd; got != want {
				t.Errorf("got %d lookups of the last interface, want %d", got, want)
			}
			if conns.asked > lookupLimit {
				t.Errorf("got %d lookups, want at most %d", conns.asked, lookupLimit)
			}
		})
	}
}

// A failure ends the lookups of a drain and is told once, as is its end.
func TestLookupFails(t *testing.T) {
	p := newTranslated(Optional{})
	p.to(1000, "10.1.0.1")
	p.conns.err = errors.New("no such table")
	for range 3 {
		checkPeers(t, "while it fails", p.epoch(t, p.flow(1000, 0, time.Second)), toService)
	}
	p.epoch(t, p.flow(1000, 0, time.Second), p.flow(1001, 0, time.Second))
	if got, want := p.Lookups(), (Lookups{Errors: 4, Skipped: 1}); got != want {
		t.Errorf("lookups: got %+v, want %+v", got, want)
	}
	p.conns.err = nil
	checkPeers(t, "afterwards", p.epoch(t, p.flow(1000, 0, time.Second)), toBlue)
	checkPeers(t, "afterwards", p.epoch(t, p.flow(1000, 0, time.Second)), toBlue)
	log := p.log.String()
	if strings.Count(log, "no such table") != 1 || strings.Count(log, "again") != 1 {
		t.Errorf("log: got %s, want one line of each", log)
	}
}
