// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"encoding/binary"
	"net/netip"
)

// A packet is built from the outside in by joining headers:
//
//	Packet(Ethernet(0x0800), IPv4(src, dst, 17), Ports(1, 2))
//
// No checksum is filled in: a meter reads none.

// Packet joins headers to one packet.
func Packet(headers ...[]byte) []byte {
	var packet []byte
	for _, h := range headers {
		packet = append(packet, h...)
	}
	return packet
}

// Ethernet returns a 14-byte Ethernet header.
func Ethernet(ethertype uint16) []byte {
	h := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0, 0}
	binary.BigEndian.PutUint16(h[12:], ethertype)
	return h
}

// VLAN returns the 4 bytes that follow an EtherType 0x8100 or 0x88a8: the tag's
// control information for VLAN id, and the EtherType of what it carries.
func VLAN(id, ethertype uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, id), ethertype)
}

// IPv4 returns a header with the given options, whose length must be a multiple
// of 4 and at most 40 bytes.
func IPv4(source, destination netip.Addr, protocol uint8, options ...byte) []byte {
	h := make([]byte, 20, 20+len(options))
	h[0] = 4<<4 | byte(5+len(options)/4)
	h[8], h[9] = 64, protocol
	copy(h[12:], source.AsSlice())
	copy(h[16:], destination.AsSlice())
	return append(h, options...)
}

// Fragment makes an IPv4 header one of a fragment with the offset, in units of
// 8 bytes, and more fragments behind it.
func Fragment(ipv4 []byte, offset uint16) []byte {
	binary.BigEndian.PutUint16(ipv4[6:], 0x2000|offset)
	return ipv4
}

// IPv6 returns a fixed IPv6 header.
func IPv6(source, destination netip.Addr, next uint8) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 6<<4, next, 64
	copy(h[8:], source.AsSlice())
	copy(h[24:], destination.AsSlice())
	return h
}

// Extension returns an IPv6 extension header of 8 × (units + 1) bytes: hop-by-hop,
// destination options or routing.
func Extension(next, units uint8) []byte {
	h := make([]byte, 8*(int(units)+1))
	h[0], h[1] = next, units
	return h
}

// IPv6Fragment returns a fragment header with the offset in units of 8 bytes.
func IPv6Fragment(next uint8, offset uint16) []byte {
	h := make([]byte, 8)
	h[0] = next
	binary.BigEndian.PutUint16(h[2:], offset<<3|1)
	return h
}

// Authentication returns an authentication header (RFC 4302) of 4 × (units + 2)
// bytes.
func Authentication(next, units uint8) []byte {
	h := make([]byte, 4*(int(units)+2))
	h[0], h[1] = next, units
	return h
}

// Ports returns the 4 bytes that TCP, UDP and SCTP headers begin with and 16
// bytes behind them.
func Ports(source, destination uint16) []byte {
	h := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, source), destination)
	return append(h, make([]byte, 16)...)
}

// ICMP returns an 8-byte header of ICMP or ICMPv6.
func ICMP(kind, code uint8) []byte {
	return []byte{kind, code, 0, 0, 0, 0, 0, 0}
}
