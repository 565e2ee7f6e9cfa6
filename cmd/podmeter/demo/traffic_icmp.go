// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
)

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const (
	echoRequest   = 8
	echoReply     = 0
	echoRequestV6 = 128
	echoReplyV6   = 129
)

// echo sends an echo request and waits for its reply, as ping does.
func echo(ctx context.Context, e *exchange) error {
	network, request, reply := "ip4:icmp", byte(echoRequest), byte(echoReply)
	if e.to.Addr().Is6() {
		network, request, reply = "ip6:ipv6-icmp", echoRequestV6, echoReplyV6
	}
	c, err := e.from.dial(ctx, e.dialer("ip"), network, e.to.Addr().String())
	if err != nil {
		return err
	}
	defer within(ctx, c)()
	message := echoMessage(request, rand.Uint32(), e.request)
	if _, err := c.Write(message); err != nil {
		return err
	}
	want := bytes.Clone(message)
	want[0], want[2], want[3] = reply, 0, 0
	return awaitReply(c.(*net.IPConn), want)
}

// echoMessage has identifier and sequence number in id. The checksum is that of
// ICMP; the kernel replaces it in ICMPv6 (RFC 3542, section 3.1).
func echoMessage(kind byte, id uint32, payload int) []byte {
	m := make([]byte, 8+payload)
	m[0] = kind
	binary.BigEndian.PutUint32(m[4:], id)
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return m
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// awaitReply reads messages, its checksum aside, until it is the one wanted: a
// raw socket sees every ICMP message from its peer.
func awaitReply(c *net.IPConn, want []byte) error {
	buffer := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if n >= 4 {
			buffer[2], buffer[3] = 0, 0
		}
		if bytes.Equal(buffer[:n], want) {
			return nil
		}
	}
}
