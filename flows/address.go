// SPDX-License-Identifier: Apache-2.0

package flows

import "net/netip"

// specialPurpose are the blocks of the IANA IPv4 and IPv6 Special-Purpose Address Registries
// (iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry, as of
// 2024-10-22, and what RFC 9780 added in 2025) that are not the internet: "globally reachable"
// is false. What is more specific comes first.
//
// Not among them are documentation (192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24,
// 2001:db8::/32, 3fff::/20), which stands for the internet wherever it is met; what is
// reachable (AS112, AMT, ORCHIDv2, drone ids); and what the registries leave open (6to4,
// Teredo). IPv4 addresses within 64:ff9b::/96 decide for themselves, see [NAT64].
var specialPurpose = newBlocks([]block{
	{"0.0.0.0/8", PeerLinkLocal},      // this network, RFC 791
	{"10.0.0.0/8", PeerPrivate},       // private use, RFC 1918
	{"100.64.0.0/10", PeerPrivate},    // shared by the customers of carriers, RFC 6598
	{"127.0.0.0/8", PeerLinkLocal},    // loopback, RFC 1122
	{"169.254.0.0/16", PeerLinkLocal}, // RFC 3927
	{"172.16.0.0/12", PeerPrivate},
	{"192.0.0.9/32", PeerExternal},  // Port Control Protocol anycast, RFC 7723
	{"192.0.0.10/32", PeerExternal}, // TURN anycast, RFC 8155
	{"192.0.0.0/24", PeerPrivate},   // IETF protocol assignments, RFC 6890
	{"192.168.0.0/16", PeerPrivate},
	{"198.18.0.0/15", PeerPrivate}, // benchmarking, RFC 2544
	{"224.0.0.0/4", PeerMulticast}, // of the registry of multicast addresses
	{"255.255.255.255/32", PeerMulticast},
	{"240.0.0.0/4", PeerPrivate}, // reserved, RFC 1112: some clouds use it within

	{"::/127", PeerLinkLocal},         // unspecified and loopback, RFC 4291
	{"64:ff9b:1::/48", PeerPrivate},   // translation in a network of one's own, RFC 8215
	{"100::/64", PeerPrivate},         // discard only, RFC 6666
	{"100:0:0:1::/64", PeerPrivate},   // dummy prefix, RFC 9780
	{"2001::/32", PeerExternal},       // Teredo, RFC 4380
	{"2001:1::1/128", PeerExternal},   // Port Control Protocol anycast, RFC 7723
	{"2001:1::2/128", PeerExternal},   // TURN anycast, RFC 8155
	{"2001:1::3/128", PeerExternal},   // DNS-SD Service Registration Protocol anycast, RFC 9665
	{"2001:3::/32", PeerExternal},     // AMT, RFC 7450
	{"2001:4:112::/48", PeerExternal}, // AS112, RFC 7535
	{"2001:20::/28", PeerExternal},    // ORCHIDv2, RFC 7343
	{"2001:30::/28", PeerExternal},    // drone remote ids, RFC 9374
	{"2001::/23", PeerPrivate},        // IETF protocol assignments, RFC 2928, benchmarking among them
	{"5f00::/16", PeerPrivate},        // segment routing SIDs, RFC 9602
	{"fc00::/7", PeerPrivate},         // unique local, RFC 4193
	{"fe80::/10", PeerLinkLocal},      // RFC 4291
	{"ff00::/8", PeerMulticast},       // of the registry of multicast addresses
})

type block struct {
	prefix string
	kind   PeerKind
}

// blocks are looked up by family, of IPv6 first, and the first byte of an address: most of the
// internet has none.
type blocks [2][256][]blockOf

type blockOf struct {
	netip.Prefix
	kind PeerKind
}

func newBlocks(all []block) *blocks {
	by := new(blocks)
	for _, b := range all {
		prefix := netip.MustParsePrefix(b.prefix)
		address := prefix.Addr()
		first, spread := int(address.AsSlice()[0]), 1<<max(0, 8-prefix.Bits())
		for n := first; n < first+spread; n++ {
			list := &by[familyOf(address)][n]
			*list = append(*list, blockOf{prefix, b.kind})
		}
	}
	return by
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 1
	}
	return 0
}

// KindOf returns what an address, unmapped, is by itself, when nobody is known to
// own it: PeerLinkLocal, PeerMulticast, PeerPrivate or PeerExternal;
// PeerUnattributed if it is invalid.
func KindOf(a netip.Addr) PeerKind {
	if !a.IsValid() {
		return PeerUnattributed
	}
	if embedded, ok := wellKnownNAT64.embedded(a); ok {
		a = embedded
	}
	a = a.WithZone("")
	first := a.As16()[0]
	if a.Is4() {
		first = a.As4()[0]
	}
	for _, b := range specialPurpose[familyOf(a)][first] {
		if b.Contains(a) {
			return b.kind
		}
	}
	return PeerExternal
}
