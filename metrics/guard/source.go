// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"net"
	"net/netip"
)

// networkBits is the part of an IPv6 address that is taken for one owner when places run
// out: the least that a site gets (RFC 6177), of which it may use every address. Limits
// themselves are by address, as Kubernetes gives a node's pods one such network.
const networkBits = 64

// origin is where a connection comes from. Both prefixes are invalid where a peer has no
// address, as on a unix socket: all such peers are one source.
type origin struct{ address, network netip.Prefix }

// originOf returns the origin of a peer. Its port says nothing, and an IPv4 address is the
// same in whichever form the socket has it.
func originOf(peer net.Addr) origin {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return origin{}
	}
	address := tcp.AddrPort().Addr().Unmap().WithZone("")
	if !address.IsValid() {
		return origin{}
	}
	o := origin{address: netip.PrefixFrom(address, address.BitLen())}
	o.network = o.address
	if address.Is6() {
		o.network = netip.PrefixFrom(address, networkBits).Masked()
	}
	return o
}

// String is the address for a log.
func (o origin) String() string {
	if !o.address.IsValid() {
		return "local"
	}
	return o.address.Addr().String()
}
