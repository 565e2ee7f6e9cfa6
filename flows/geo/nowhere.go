// SPDX-License-Identifier: Apache-2.0

package geo

import "net/netip"

// nowhere says whether an address, unmapped, is in no particular place, so that
// a database that claims to know it is wrong.
func nowhere(a netip.Addr) bool {
	return !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsPrivate() ||
		a.IsLinkLocalUnicast() || a.IsMulticast() || shared(a)
}

// shared says whether the address is in 100.64.0.0/10, the space shared by the
// customers of carrier-grade NAT (RFC 6598).
func shared(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	b := a.As4()
	return b[0] == 100 && b[1]&0xc0 == 64
}
