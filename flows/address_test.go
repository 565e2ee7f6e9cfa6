// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"strings"
	"testing"
)

func TestKindOf(t *testing.T) {
	for addresses, want := range map[string]PeerKind{
		"0.0.0.0 0.1.2.3 127.0.0.1 127.255.255.255 169.254.169.254 :: ::1 fe80::1 fe80::1%eth0 febf::1":                          PeerLinkLocal,
		"224.0.0.1 239.255.255.255 255.255.255.255 ff02::1 ff0e::1":                                                              PeerMulticast,
		"10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 fc00::1 fdff::1":                              PeerPrivate,
		"192.0.0.1 192.0.0.8 192.0.0.170 198.18.0.1 198.19.255.255 240.0.0.1 255.255.255.254":                                    PeerPrivate,
		"64:ff9b:1::1 64:ff9b:1:ffff::1 100::1 100:0:0:1::1 2001:2::1 2001:10::1 2001:1ff::1 2001:1::4 5f00::1":                  PeerPrivate,
		"1.1.1.1 9.255.255.255 11.0.0.1 100.128.0.1 172.32.0.1 192.0.1.1 192.167.0.1 198.17.0.1 198.20.0.1 223.255.255.255":      PeerExternal,
		"192.0.0.9 192.0.0.10 192.31.196.1 192.52.193.1 192.88.99.1 192.175.48.1":                                                PeerExternal,
		"2001::1 2001:1::1 2001:1::2 2001:1::3 2001:3::1 2001:4:112::1 2001:20::1 2001:30::1 2001:200::1 2002::1 2620:4f:8000::": PeerExternal,
		// Documentation stands for the internet.
		"192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1": PeerExternal,
		// What a well-known NAT64 address has in it.
		"64:ff9b::198.51.100.7": PeerExternal,
		"64:ff9b::10.0.0.1":     PeerPrivate,
		"64:ff9b::127.0.0.1":    PeerLinkLocal,
		"64:ff9b::224.0.0.1":    PeerMulticast,
	} {
		for _, address := range strings.Fields(addresses) {
			if got := KindOf(netip.MustParseAddr(address)); got != want {
				t.Errorf("%s: got %v, want %v", address, got, want)
			}
		}
	}
	if got := KindOf(netip.Addr{}); got != PeerUnattributed {
		t.Errorf("no address: got %v, want %v", got, PeerUnattributed)
	}
}

// The examples of RFC 6052, 2.4.
func TestNAT64(t *testing.T) {
	want := netip.MustParseAddr("192.0.2.33")
	for prefix, address := range map[string]string{
		"2001:db8::/32": "2001:db8:c000:221::", "2001:db8:100::/40": "2001:db8:1c0:2:21::", "2001:db8:122::/48": "2001:db8:122:c000:2:2100::",
		"2001:db8:122:300::/56": "2001:db8:122:3c0:0:221::", "2001:db8:122:344::/64": "2001:db8:122:344:c0:2:2100::",
		"2001:db8:122:344::/96": "2001:db8:122:344::192.0.2.33", "64:ff9b:1::/96": "64:ff9b:1::192.0.2.33",
	} {
		parsed, err := ParseNAT64Prefix(prefix)
		if err != nil {
			t.Errorf("%s: %v", prefix, err)
			continue
		}
		if got, ok := NewNAT64([]netip.Prefix{parsed}).Embedded(netip.MustParseAddr(address)); !ok || got != want {
			t.Errorf("%s in %s: got %v %v, want %v", address, prefix, got, ok, want)
		}
	}
	if got, ok := NAT64(nil).Embedded(netip.MustParseAddr("64:ff9b::192.0.2.33")); !ok || got != want {
		t.Errorf("well-known: got %v %v, want %v", got, ok, want)
	}
	for _, address := range []string{"64:ff9b::1:192.0.2.33", "64:ff9b:1::192.0.2.33", "2001:db8::1", "192.0.2.33"} {
		if got, ok := NAT64(nil).Embedded(netip.MustParseAddr(address)); ok {
			t.Errorf("%s: got %v, want none", address, got)
		}
	}
	for _, prefix := range []string{"64:ff9b:1::", "10.0.0.0/8", "::ffff:10.0.0.0/96", "64:ff9b:1::/95", "64:ff9b:1::1/96"} {
		if _, err := ParseNAT64Prefix(prefix); err == nil {
			t.Errorf("%s: got no error, want one", prefix)
		}
	}
}

// A peer behind a translator is what its IPv4 address is, and placed by it.
func TestPeersBehindNAT64(t *testing.T) {
	_, _, d := world(1, roomy, Optional{})
	a := attribution{directory: d, places: places{}, optional: Optional{City: true, PeerIP: true},
		nat64: NewNAT64([]netip.Prefix{netip.MustParsePrefix("2001:db8:64::/96")})}
	for address, want := range map[string]rowLabels{
		"64:ff9b::198.51.100.7":     {FlowLabels{PeerKind: PeerExternal, Locality: LocalityExternal}, ExternalLabels{Country: "C0", City: "198.51.100.7"}},
		"2001:db8:64::198.51.100.7": {FlowLabels{PeerKind: PeerExternal, Locality: LocalityExternal}, ExternalLabels{Country: "C0", City: "198.51.100.7"}},
		"2001:db8:64::192.168.0.7":  {flow: FlowLabels{PeerKind: PeerPrivate}},
		// Whoever owns 10.0.0.1 here need not be who has it behind the translator.
		"2001:db8:64::10.0.0.1": {flow: FlowLabels{PeerKind: PeerPrivate}},
		"2001:db8:65::10.0.0.1": {FlowLabels{PeerKind: PeerExternal, Locality: LocalityExternal}, ExternalLabels{Country: "C1", City: "2001:db8:65::a00:1"}},
	} {
		peer := netip.MustParseAddr(address)
		want.flow.Protocol, want.flow.PeerIP = ProtoTCP, peer
		got := a.labels(&Record{First: start, Last: start, Key: Key{
			EtherType: EtherTypeIPv6, Protocol: ProtocolTCP, Source: netip.MustParseAddr("2001:db8::1"), Destination: peer, DestinationPort: 443}})
		if got != want {
			t.Errorf("%s: got %+v, want %+v", address, got, want)
		}
	}
}
