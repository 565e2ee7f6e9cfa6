// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Close implements [net.Conn]. What the kernel has not delivered yet it may go on sending
// for a while, within which the connection keeps its place. Left to the kernel alone, a
// reader could keep it for hours, beyond every limit.
func (c *conn) Close() error {
	if c.linger() {
		return nil
	}
	c.table.mu.Lock()
	c.table.remove(c)
	c.table.mu.Unlock()
	return c.Conn.Close()
}

// linger reports whether the connection is closed but for what was not delivered.
func (c *conn) linger() bool {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return false
	}
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	if _, ok := c.table.conns[c]; !ok || c.lingering {
		return ok
	}
	if undelivered(tcp) == 0 || tcp.CloseWrite() != nil {
		return false
	}
	c.lingering, c.since = true, time.Now()
	c.table.forgetUnread(c)
	time.AfterFunc(lingerPoll, func() { c.lingers(tcp) })
	return true
}

// lingers ends it when all is delivered, or when that takes too long.
func (c *conn) lingers(tcp *net.TCPConn) {
	c.table.mu.Lock()
	_, there := c.table.conns[c]
	late := time.Since(c.since) >= c.table.limits.linger
	c.table.mu.Unlock()
	switch {
	case !there: // cut off meanwhile
	case undelivered(tcp) == 0:
		c.table.mu.Lock()
		c.table.remove(c)
		c.table.mu.Unlock()
		tcp.Close()
	case late:
		c.end(reasonSlowReader)
	default:
		time.AfterFunc(lingerPoll, func() { c.lingers(tcp) })
	}
}

// undelivered returns how many bytes the peer has not acknowledged (tcp(7), SIOCOUTQ).
func undelivered(tcp *net.TCPConn) int {
	n := 0
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		if left, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = left
		}
	})
	return n
}
