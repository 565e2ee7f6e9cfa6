// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"maps"
	"net/netip"
	"testing"
	"time"
)

// neighbours is a directory of a bridge: its own node's pods, one of another node, and the node.
type neighbours struct{ *directory }

var neighbourhood = map[string]*Owner{
	"2001:db8::2":     {Kind: PeerPod, Namespace: "ns", Name: "near", Node: "a", Zone: "z1"},
	"2001:db8::3":     {Kind: PeerPod, Namespace: "ns", Name: "anywhere"},
	"2001:db8:1::2":   {Kind: PeerPod, Namespace: "ns", Name: "far", Node: "b", Zone: "z2"},
	"2001:db8::1":     {Kind: PeerNode, Name: "a", Node: "a", Zone: "z1"},
	"2001:db8:9::1":   {Kind: PeerNode, Name: "b", Node: "b", Zone: "z1"},
	"2001:db8:77::1":  {Kind: PeerCIDR, Name: "office"},
	"fd00::7":         {Kind: PeerPrivate},
	"10.0.0.2":        {Kind: PeerPod, Namespace: "ns", Name: "near", Node: "a", Zone: "z1"},
	"fe80::2":         {Kind: PeerLinkLocal},
	"fe80::3":         {Kind: PeerLinkLocal},
	"169.254.169.254": {Kind: PeerLinkLocal},
	"ff02::1":         {Kind: PeerMulticast},
	"255.255.255.255": {Kind: PeerMulticast},
}

func (neighbours) Owner(q Query) *Owner {
	if owner := neighbourhood[q.Address.String()]; owner != nil {
		return owner
	}
	return external
}

// sent returns a flow of a packet to an address; of ICMP the port is type × 256 + code.
func sent(protocol uint8, to string, port uint16) *Record {
	peer := netip.MustParseAddr(to)
	key := Key{Point: 1, EtherType: EtherTypeIPv6, Protocol: protocol, Source: netip.MustParseAddr("2001:db8::9"), Destination: peer, DestinationPort: port}
	if peer.Is4() {
		key.EtherType, key.Source = EtherTypeIPv4, podAddress(1)
	}
	return &Record{Key: key, Counters: Counters{100, 1}, First: start, Last: start}
}

// Peers on the link have no labels but their kind and protocol, and what only looks like discovery
// keeps a peer that no link reaches.
func TestPeersOnTheLink(t *testing.T) {
	near := FlowLabels{PeerKind: PeerPod, Locality: LocalitySameNode, PeerNamespace: "ns", Peer: "near"}
	for _, test := range []struct {
		name   string
		record *Record
		want   FlowLabels // without protocol, port and address
		asked  FlowLabels // with --link-local-peers
	}{
		{"router solicitation to a pod", sent(ProtocolICMPv6, "2001:db8::2", 133<<8), FlowLabels{PeerKind: PeerLinkLocal}, near},
		{"neighbour advertisement to a pod", sent(ProtocolICMPv6, "2001:db8::2", 136<<8), FlowLabels{PeerKind: PeerLinkLocal}, near},
		{"redirect to a pod", sent(ProtocolICMPv6, "2001:db8::2", 137<<8), FlowLabels{PeerKind: PeerLinkLocal}, near},
		{"to a pod of unknown node", sent(ProtocolICMPv6, "2001:db8::3", 135<<8), FlowLabels{PeerKind: PeerLinkLocal},
			FlowLabels{PeerKind: PeerPod, PeerNamespace: "ns", Peer: "anywhere"}},
		{"to the node", sent(ProtocolICMPv6, "2001:db8::1", 135<<8), FlowLabels{PeerKind: PeerLinkLocal},
			FlowLabels{PeerKind: PeerNode, Locality: LocalitySameNode, Peer: "a"}},
		{"link-local", sent(ProtocolICMPv6, "fe80::2", 136<<8), FlowLabels{PeerKind: PeerLinkLocal}, FlowLabels{PeerKind: PeerLinkLocal}},
		{"link-local, IPv4", sent(ProtocolTCP, "169.254.169.254", 80), FlowLabels{PeerKind: PeerLinkLocal}, FlowLabels{PeerKind: PeerLinkLocal}},
		{"multicast", sent(ProtocolUDP, "ff02::1", 5353), FlowLabels{PeerKind: PeerMulticast}, FlowLabels{PeerKind: PeerMulticast}},
		{"broadcast", sent(ProtocolUDP, "255.255.255.255", 67), FlowLabels{PeerKind: PeerMulticast}, FlowLabels{PeerKind: PeerMulticast}},
		{"no IP", &Record{Key: Key{EtherType: 0x806}}, FlowLabels{PeerKind: PeerLink}, FlowLabels{PeerKind: PeerLink}},
		{"echo", sent(ProtocolICMPv6, "2001:db8::2", 128<<8), near, near},
		{"below the types", sent(ProtocolICMPv6, "2001:db8::2", 132<<8), near, near},
		{"above the types", sent(ProtocolICMPv6, "2001:db8::2", 138<<8), near, near},
		{"a port like it", sent(ProtocolUDP, "2001:db8::2", 135<<8), near, near},
		{"over IPv4", sent(ProtocolICMPv6, "10.0.0.2", 135<<8), near, near},
		{"to another zone's pod", sent(ProtocolICMPv6, "2001:db8:1::2", 135<<8),
			FlowLabels{PeerKind: PeerPod, Locality: LocalityCrossZone, PeerNamespace: "ns", Peer: "far"},
			FlowLabels{PeerKind: PeerPod, Locality: LocalityCrossZone, PeerNamespace: "ns", Peer: "far"}},
		{"to another node", sent(ProtocolICMPv6, "2001:db8:9::1", 135<<8),
			FlowLabels{PeerKind: PeerNode, Locality: LocalitySameZone, Peer: "b"},
			FlowLabels{PeerKind: PeerNode, Locality: LocalitySameZone, Peer: "b"}},
		{"to a named range", sent(ProtocolICMPv6, "2001:db8:77::1", 135<<8),
			FlowLabels{PeerKind: PeerCIDR, Peer: "office"}, FlowLabels{PeerKind: PeerCIDR, Peer: "office"}},
		{"to a private address", sent(ProtocolICMPv6, "fd00::7", 135<<8), FlowLabels{PeerKind: PeerPrivate}, FlowLabels{PeerKind: PeerPrivate}},
		{"to the internet", sent(ProtocolICMPv6, "2001:db8:ffff::1", 135<<8),
			FlowLabels{PeerKind: PeerExternal, Locality: LocalityExternal}, FlowLabels{PeerKind: PeerExternal, Locality: LocalityExternal}},
	} {
		for _, asked := range []bool{false, true} {
			a := attribution{directory: neighbours{&directory{}}, optional: Optional{PeerIP: true, PeerPort: true, LinkLocalPeers: asked}}
			got, want := a.labels(test.record).flow, test.want
			if asked {
				want = test.asked
			}
			if test.record.Key.IsIP() {
				want.Protocol = protocolOf(test.record.Key.Protocol)
				if asked || !want.PeerKind.onLink() {
					want.PeerIP, want.PeerPort = test.record.Key.Destination, test.record.Key.DestinationPort
				}
			}
			if got != want {
				t.Errorf("%s, asked for %v: got %+v, want %+v", test.name, asked, got, want)
			}
		}
	}
}

// What is on the link takes no place of real traffic, whatever a pod sends, and has no label
// of a socket: a process may have any name.
func TestRowsOnTheLinkAreFew(t *testing.T) {
	for asked, want := range map[bool]map[FlowLabels]uint64{
		false: {
			{PeerKind: PeerLinkLocal, Protocol: ProtoICMPv6}: 300, {PeerKind: PeerLinkLocal, Protocol: ProtoTCP}: 100,
			{PeerKind: PeerMulticast, Protocol: ProtoUDP}: 200, {PeerKind: PeerExternal, Locality: LocalityExternal, Protocol: ProtoTCP}: 100,
		},
		true: {
			{PeerKind: PeerLinkLocal, Protocol: ProtoICMPv6, Process: "p"}: 200, {PeerKind: PeerPod, Locality: LocalitySameNode, Peer: folded}: 100,
			{PeerKind: PeerLinkLocal, Peer: folded}: 100, {PeerKind: PeerMulticast, Peer: folded}: 200,
			{PeerKind: PeerExternal, Locality: LocalityExternal, Peer: folded}: 100,
		},
	} {
		table := NewTable(TableOptions{FlowLimit: 1, ExternalLimit: 1, FlowIdle: time.Hour, SeriesGrace: time.Hour, LinkLocalPeers: asked})
		a := attribution{directory: neighbours{&directory{}}}
		a.optional = Optional{Process: true, LinkLocalPeers: asked}
		pod := &Pod{UID: "u", Namespace: "ns", Name: "p"}
		for _, record := range []*Record{
			sent(ProtocolICMPv6, "fe80::2", 135<<8), sent(ProtocolICMPv6, "fe80::3", 135<<8), sent(ProtocolICMPv6, "2001:db8::2", 136<<8),
			sent(ProtocolTCP, "169.254.169.254", 80), sent(ProtocolUDP, "ff02::1", 5353), sent(ProtocolUDP, "255.255.255.255", 67),
			sent(ProtocolTCP, "2001:db8:ffff::1", 443),
		} {
			next := newBatch(start, start.Add(time.Minute), storedLabels)
			next.living["u"] = pod
			next.addTotal(pod, Transmit, amount{record.Counters, start})
			next.addLabels(pod, a.labels(record).local(pod, user{process: "p"}, &a.optional), amount{record.Counters, start})
			table.Add(next)
		}
		s, got := table.Snapshot(), make(map[FlowLabels]uint64)
		for _, row := range s.Flows {
			if !row.Labels.PeerKind.onLink() {
				row.Labels.Process = ""
			}
			got[row.Labels] += row.Counters[Transmit].Bytes
		}
		if !maps.Equal(got, want) {
			t.Errorf("asked for %v: got %v, want %v", asked, got, want)
		}
		checkIdentities(t, s)
	}
}

// storedLabels are those of rows that [Batch.addLabels] added.
func storedLabels(key *rowKey) rowLabels { return *key.source.stored }

// addLabels adds to what a pod sent in a row of these labels.
func (b *Batch) addLabels(pod *Pod, labels rowLabels, a amount) {
	b.addRow(rowKey{pod: pod, direction: Transmit, source: source{stored: &labels}}, a)
}

// Rows that an agent before counted towards the limit give their places back.
func TestRowsOnTheLinkOfAnEarlierAgent(t *testing.T) {
	table := NewTable(TableOptions{FlowLimit: 1, FlowIdle: time.Hour, SeriesGrace: time.Hour})
	err := table.restore(&State{Accounts: []AccountState{{Namespace: "ns", Pod: "p", UIDs: []string{"u"}, Flows: []RowState[FlowLabels]{
		{Labels: FlowLabels{PeerKind: PeerMulticast, Protocol: ProtoUDP}, Last: start, Counted: true},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	pod, batch := &Pod{UID: "u", Namespace: "ns", Name: "p"}, newBatch(start, start.Add(time.Minute), storedLabels)
	batch.living["u"] = pod
	for _, labels := range []FlowLabels{{PeerKind: PeerMulticast, Protocol: ProtoUDP}, {PeerKind: PeerPrivate, Protocol: ProtoTCP}} {
		batch.addTotal(pod, Transmit, amount{Counters{100, 1}, start})
		batch.addLabels(pod, rowLabels{flow: labels}, amount{Counters{100, 1}, start})
	}
	table.Add(batch)
	table.Add(batch) // in whatever order the first was added
	if s := table.Snapshot(); s.FlowSets > 1 || s.FlowSets != table.flows.taken {
		t.Errorf("label sets: got %d and %d places taken, want the same and at most 1", s.FlowSets, table.flows.taken)
	}
	for labels, r := range table.names[name{"ns", "p"}].flows.rows {
		if labels.PeerKind == PeerMulticast && r.counted {
			t.Errorf("%+v: got it counted, want it outside of the limit", labels)
		}
	}
}
