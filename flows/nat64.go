// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// NAT64 are the prefixes of IPv6 addresses in which translators have IPv4 addresses (RFC 6052).
// The well-known one, 64:ff9b::/96, always is one of them.
type NAT64 []nat64Prefix

type nat64Prefix struct{ netip.Prefix }

// wellKnownNAT64 is that of RFC 6052.
var wellKnownNAT64 = nat64Prefix{netip.MustParsePrefix("64:ff9b::/96")}

// ParseNAT64Prefix returns the prefix of a network's own translators. The error says what one
// is.
func ParseNAT64Prefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil, !p.Addr().Is6(), p.Addr().Is4In6():
		return p, errors.New("a prefix of IPv6 is expected, such as 64:ff9b:1::/96")
	case !slices.Contains([]int{32, 40, 48, 56, 64, 96}, p.Bits()):
		return p, errors.New("a prefix of 32, 40, 48, 56, 64 or 96 bits is expected (RFC 6052)")
	case p != p.Masked():
		return p, fmt.Errorf("bits behind the prefix are set; is it %v?", p.Masked())
	}
	return p, nil
}

// NewNAT64 returns prefixes as [ParseNAT64Prefix] gives them, beside the well-known one.
func NewNAT64(own []netip.Prefix) (all NAT64) {
	for _, p := range own {
		all = append(all, nat64Prefix{p})
	}
	return all
}

// Embedded returns the IPv4 address in one of IPv6; ok is false if none of the prefixes has it.
func (n NAT64) Embedded(a netip.Addr) (embedded netip.Addr, ok bool) {
	if embedded, ok = wellKnownNAT64.embedded(a); ok {
		return embedded, true
	}
	for _, p := range n {
		if embedded, ok = p.embedded(a); ok {
			return embedded, true
		}
	}
	return netip.Addr{}, false
}

// embedded returns the four bytes behind the prefix, without the byte of bits 64 to 71, which
// is none of the address (RFC 6052, 2.2).
func (p nat64Prefix) embedded(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() || !p.Contains(a.WithZone("")) {
		return netip.Addr{}, false
	}
	const reserved = 8
	var v4 [4]byte
	bytes, at := a.As16(), p.Bits()/8
	for i := range v4 {
		if at == reserved {
			at++
		}
		v4[i] = bytes[at]
		at++
	}
	return netip.AddrFrom4(v4), true
}
