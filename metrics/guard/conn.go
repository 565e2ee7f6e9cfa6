// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// errCut is what a connection returns that peers of others, or itself, have ended.
var errCut = errors.New("connection was cut off")

// connNumber numbers connections by age.
var connNumber atomic.Uint64

// conn is an accepted connection, below TLS.
type conn struct {
	net.Conn
	table   *table
	origin  origin
	number  uint64
	input   *rate.Limiter
	address *group // of the origin
	network *group

	// All of these are guarded by the table's lock.

	// since is when it was accepted, when its last request began or ended, when its large
	// answer began, or when it was closed.
	since time.Time
	// http2 is whether it speaks that; used whether a request has ended, or it was greeted.
	http2, used bool
	// active is whether it is at a request, from its last byte on until the answer is
	// written; requested whether that is one that no handler has got.
	active, requested bool
	// handling counts running handlers, writing writes that have not ended, answers large
	// answers.
	handling, writing, answers int
	// unread is how much has come for a request that is not complete; stalled how much since
	// the write that has not ended began.
	unread, stalled int
	// broken is whether reading has failed, lingering whether it is closed but for what the
	// kernel has not delivered.
	broken, lingering bool
}

func newConn(t *table, inner net.Conn) *conn {
	return &conn{
		Conn: inner, table: t, origin: originOf(inner.RemoteAddr()), number: connNumber.Add(1), since: time.Now(),
		input: rate.NewLimiter(inputRate, inputBurst),
	}
}

// expendable is how little it would be missed: least what is being answered. Its caller
// holds the lock.
func (c *conn) expendable() int {
	switch {
	case c.lingering:
		return 2
	case c.handling == 0:
		return 1
	}
	return 0
}

// cut ends it at once: what was not delivered is given up, or else the kernel would keep it
// for as long as its reader likes.
func (c *conn) cut() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Conn.Close()
}

// end takes it out of the table, with a reason, and cuts it.
func (c *conn) end(why reason) {
	c.table.mu.Lock()
	there := c.table.remove(c)
	c.broken = true
	c.table.mu.Unlock()
	c.cut()
	if there {
		c.table.refuse(why, c.origin)
	}
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.unreadable(err)
		return n, err
	}
	if !c.input.AllowN(time.Now(), n) || !c.received(n) {
		c.end(reasonFlood)
		return 0, errCut
	}
	return n, nil
}

// received counts input, for which another connection may be ended. It reports whether it
// is within what this one may send.
func (c *conn) received(n int) bool {
	t := c.table
	t.mu.Lock()
	if _, ok := t.conns[c]; !ok {
		t.mu.Unlock()
		return true // closed: the next read fails
	}
	if c.writing > 0 {
		c.stalled += n
	}
	if c.handling == 0 {
		t.count(c, group{unread: n})
		c.unread += n
	}
	ok := c.stalled <= stalledInput
	var victims []*conn
	for t.sum.unread > t.limits.unread {
		victim := t.heaviest(unreadOf, func(o *conn) bool { return o.unread > 0 })
		t.remove(victim)
		victims = append(victims, victim)
	}
	t.mu.Unlock()
	for _, victim := range victims {
		victim.cut()
		t.refuse(reasonHeaders, victim.origin)
	}
	return ok
}

// unreadable notes that reading has failed. The deadline is that of a handshake or request
// where part of one is missing, and else that of an idle connection.
func (c *conn) unreadable(err error) {
	t := c.table
	t.mu.Lock()
	_, there := t.conns[c]
	expired := errors.Is(err, os.ErrDeadlineExceeded)
	late := there && expired && !c.active && !c.broken && (c.unread > 0 || !c.used)
	c.broken = c.broken || !expired || late
	t.mu.Unlock()
	if late {
		t.refuse(reasonTimeout, c.origin)
	}
}

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	c.writes(1)
	defer c.writes(-1)
	return c.Conn.Write(p)
}

func (c *conn) writes(n int) {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	if c.writing == 0 {
		c.stalled = 0
	}
	c.writing += n
}

// handles notes that a handler begins (1) or ends (-1).
func (c *conn) handles(n int) {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	c.requested = false
	c.handling += n
	if c.answers == 0 {
		c.since = time.Now()
	}
}

// state follows what [http.Server.ConnState] reports.
func (c *conn) state(outer net.Conn, state http.ConnState) {
	switch state {
	case http.StateActive: // a request was read, or cannot be
		c.greet(outer)
		c.table.mu.Lock()
		c.active, c.requested = true, true
		c.table.forgetUnread(c)
		c.table.mu.Unlock()
	case http.StateIdle:
		c.table.mu.Lock()
		c.active, c.requested, c.used = false, false, true
		c.table.forgetUnread(c)
		c.table.mu.Unlock()
	case http.StateClosed:
		c.table.mu.Lock()
		faulty := c.requested && !c.broken
		c.table.mu.Unlock()
		if faulty {
			c.table.refuse(reasonHeaders, c.origin)
		}
	}
}

// greet finds out which protocol is spoken.
func (c *conn) greet(outer net.Conn) {
	if secure, ok := outer.(*tls.Conn); ok && secure.ConnectionState().NegotiatedProtocol == "h2" {
		c.speaksHTTP2()
	}
}

// speaksHTTP2 counts it among those that do, once. Too many of them end one.
func (c *conn) speaksHTTP2() {
	t := c.table
	t.mu.Lock()
	var victim *conn
	if _, there := t.conns[c]; there && !c.http2 {
		c.http2 = true
		t.count(c, group{http2: 1})
		if t.sum.http2 > t.limits.http2 {
			victim = t.heaviest(http2Of, func(o *conn) bool { return o.http2 })
		}
	}
	t.end(victim, reasonHTTP2)
}
