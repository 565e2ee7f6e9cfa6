// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

const dnsPort = 53

// serveUDP answers each datagram with one of the size that its first two bytes
// tell. Each address has a socket of its own, so that answers come from it.
func (t *traffic) serveUDP(n *namespace, addresses ...netip.Addr) error {
	for _, address := range addresses {
		c, err := n.listenPacket(t.ctx, netip.AddrPortFrom(address, dnsPort).String())
		if err != nil {
			return fmt.Errorf("serve UDP in %s: %w", n.name, err)
		}
		t.serve(c, func() { answerUDP(c) })
	}
	return nil
}

func answerUDP(c net.PacketConn) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buffer)
		if err != nil {
			return // closed
		}
		if n < 2 {
			continue
		}
		size := min(int(binary.BigEndian.Uint16(buffer)), len(buffer))
		c.WriteTo(buffer[:size], from) // who asked sees that nothing comes
	}
}

// query sends a datagram and waits for the answer, as a resolver does.
func query(ctx context.Context, e *exchange) error {
	c, err := e.from.dial(ctx, e.dialer("udp"), "udp", e.to.String())
	if err != nil {
		return err
	}
	defer within(ctx, c)()
	question := make([]byte, e.request)
	binary.BigEndian.PutUint16(question, uint16(e.response))
	if _, err := c.Write(question); err != nil {
		return err
	}
	answer := make([]byte, 1500)
	n, err := c.Read(answer)
	if err == nil && n != e.response {
		err = fmt.Errorf("got an answer of %d bytes, want %d", n, e.response)
	}
	return err
}
