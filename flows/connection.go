// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"time"
)

// Connection is what a pod's packets show of a connection to a Service, the same in
// both directions.
type Connection struct {
	Protocol uint8 // IP protocol number: TCP, UDP or SCTP
	// Client is the pod's side, Service the address that it talks to.
	Client, Service netip.AddrPort
}

// connectionOf returns the connection of a flow; ok is false for one that has no
// ports: ICMP, later fragments.
func connectionOf(key *Key) (c Connection, ok bool) {
	switch key.Protocol {
	case ProtocolTCP, ProtocolUDP, ProtocolSCTP:
	default:
		return c, false
	}
	if key.SourcePort == 0 || key.DestinationPort == 0 {
		return c, false
	}
	return Connection{
		Protocol: key.Protocol,
		Client:   netip.AddrPortFrom(key.Local()), Service: netip.AddrPortFrom(key.Peer()),
	}, true
}

// Backend is where a node sends the packets of a connection to a Service.
type Backend struct {
	Address netip.AddrPort
	// Since is when the node chose it, zero if it does not say.
	Since time.Time
}

// Translator knows what a node translates connections to, now.
type Translator interface {
	// Backend returns where the connection's packets go; found is false if the node
	// does not know it, or not any more. An error is about all connections: nothing
	// can be told for the time being.
	Backend(Connection) (b Backend, found bool, err error)
}

// Lookups count what came of asking a [Translator], by connection and drain.
type Lookups struct {
	// Found were told, Missing not known to the node.
	Found, Missing uint64
	// Skipped were not asked for, as that would have taken a drain too long or had
	// just failed; here both directions of a connection count. Errors are the failures.
	Skipped, Errors uint64
}
