// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"strconv"
)

// Point identifies an observation point: the ifindex of the interface, as
// RFC 7011 understands the word. Ids from 2^31 up are kept free for points that
// are no interface.
type Point uint32

// Direction is the way of a packet seen from the pod.
type Direction uint8

// The directions of an observation point. Their values are those of the kernel
// side (bpf/flow.h) and index every [Directions]-sized array of this package.
const (
	Transmit Direction = 0
	Receive  Direction = 1

	Directions = 2
)

// String returns the direction as it stands in metric names.
func (d Direction) String() string {
	if d == Transmit {
		return "transmit"
	}
	return "receive"
}

// Counters are what is counted of a flow, an interface or a series.
type Counters struct {
	// Bytes is the sum of packet lengths, Ethernet headers included.
	Bytes uint64 `json:"bytes"`
	// Packets is the number of packets; a GSO packet counts as one.
	Packets uint64 `json:"packets"`
}

// Add adds o to c.
func (c *Counters) Add(o Counters) {
	c.Bytes += o.Bytes
	c.Packets += o.Packets
}

// Sub returns c minus o, modulo 2^64.
func (c Counters) Sub(o Counters) Counters {
	return Counters{Bytes: c.Bytes - o.Bytes, Packets: c.Packets - o.Packets}
}

// IsZero reports whether nothing was counted.
func (c Counters) IsZero() bool { return c == Counters{} }

// Numbers that the IANA assigned and the attribution knows by name.
const (
	ProtocolICMP   = 1
	ProtocolTCP    = 6
	ProtocolUDP    = 17
	ProtocolICMPv6 = 58
	ProtocolSCTP   = 132

	EtherTypeIPv4 = 0x0800
	EtherTypeIPv6 = 0x86dd
)

// Key is a flow key: an observation point and what is known of the packet's
// 5-tuple. What a packet does not carry is zero.
type Key struct {
	Point     Point
	Direction Direction
	// EtherType is that of the innermost VLAN tag or the Ethernet header. For
	// anything but IPv4 and IPv6 the fields below are zero.
	EtherType uint16
	// Protocol is the IP protocol number, after IPv6 extension headers.
	Protocol uint8
	// Source and Destination are as the packet shows them, IPv4 unmapped.
	Source, Destination netip.Addr
	// SourcePort and DestinationPort are host order. For ICMP and ICMPv6 the
	// destination port is type<<8 | code, as in IPFIX (RFC 7012, icmpTypeCodeIPv4).
	SourcePort, DestinationPort uint16
}

// IsIP reports whether the packet had an IP header that could be read.
func (k Key) IsIP() bool { return k.Source.IsValid() }

// Local returns the pod's address and port.
func (k Key) Local() (netip.Addr, uint16) {
	if k.Direction == Transmit {
		return k.Source, k.SourcePort
	}
	return k.Destination, k.DestinationPort
}

// Peer returns the other side's address and port.
func (k Key) Peer() (netip.Addr, uint16) {
	if k.Direction == Transmit {
		return k.Destination, k.DestinationPort
	}
	return k.Source, k.SourcePort
}

// String returns the key for logs: "7 transmit tcp 10.0.0.1:80 > 10.0.0.2:4096".
func (k Key) String() string {
	head := strconv.Itoa(int(k.Point)) + " " + k.Direction.String() + " "
	if !k.IsIP() {
		return head + "ethertype 0x" + strconv.FormatUint(uint64(k.EtherType), 16)
	}
	return head + protocolOf(k.Protocol).String() + " " +
		netip.AddrPortFrom(k.Source, k.SourcePort).String() + " > " +
		netip.AddrPortFrom(k.Destination, k.DestinationPort).String()
}
