// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"cmp"
	"net"
	"net/netip"
	"sync"
	"time"
)

// table holds the connections of one listener.
type table struct {
	limits limits
	// refuse counts and logs; it is called without the lock.
	refuse func(reason, origin)

	mu     sync.Mutex
	conns  map[*conn]struct{}
	groups map[netip.Prefix]*group
	sum    group
	closed bool
}

// group counts what the connections of an address or a network have.
type group struct{ conns, http2, answers, unread int }

func newTable(limits limits, refuse func(reason, origin)) *table {
	return &table{
		limits: limits, refuse: refuse, conns: make(map[*conn]struct{}), groups: make(map[netip.Prefix]*group),
	}
}

// admit takes a new connection in. It returns nil if there is no place, and has closed it
// then; else another may have made room.
func (t *table) admit(inner net.Conn) *conn {
	c := newConn(t, inner)
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		c.cut()
		return nil
	}
	t.conns[c] = struct{}{}
	c.address, c.network = t.group(c.origin.address), t.group(c.origin.network)
	t.count(c, group{conns: 1})
	var victim *conn
	why := reasonSourceConnections
	if c.address.conns > t.limits.sourceConnections {
		victim = t.heaviest(connsOf, func(o *conn) bool { return o != c && o.address == c.address })
	} else if t.sum.conns > t.limits.connections {
		why, victim = reasonConnections, t.heaviest(connsOf, func(o *conn) bool { return o != c })
		if victim == nil || heavier(c, victim, connsOf) < 0 {
			victim = c
		}
	}
	t.end(victim, why)
	if victim == c {
		return nil
	}
	return c
}

// end unlocks, after it has taken a connection out if it is not nil, and closes it.
func (t *table) end(victim *conn, why reason) {
	if victim != nil {
		t.remove(victim)
	}
	t.mu.Unlock()
	if victim != nil {
		victim.cut()
		t.refuse(why, victim.origin)
	}
}

// group returns the group of a prefix. It is deleted with its last connection.
func (t *table) group(prefix netip.Prefix) *group {
	g := t.groups[prefix]
	if g == nil {
		g = new(group)
		t.groups[prefix] = g
	}
	return g
}

// count adds to what a connection's groups and all connections have.
func (t *table) count(c *conn, more group) {
	t.sum.add(more)
	c.address.add(more)
	if c.network != c.address { // as it is of IPv4
		c.network.add(more)
	}
}

func (g *group) add(more group) {
	g.conns += more.conns
	g.http2 += more.http2
	g.answers += more.answers
	g.unread += more.unread
}

// remove takes a connection out and reports whether it was there.
func (t *table) remove(c *conn) bool {
	if _, ok := t.conns[c]; !ok {
		return false
	}
	delete(t.conns, c)
	less := group{conns: -1, answers: -c.answers, unread: -c.unread}
	if c.http2 {
		less.http2 = -1
	}
	t.count(c, less)
	for prefix, g := range map[netip.Prefix]*group{c.origin.address: c.address, c.origin.network: c.network} {
		if g.conns == 0 {
			delete(t.groups, prefix)
		}
	}
	return true
}

// forgetUnread takes back what was counted for a request that is complete now.
func (t *table) forgetUnread(c *conn) {
	if _, ok := t.conns[c]; ok {
		t.count(c, group{unread: -c.unread})
	}
	c.unread = 0
}

// The counts that connections are weighed by.
func connsOf(g *group) int   { return g.conns }
func http2Of(g *group) int   { return g.http2 }
func answersOf(g *group) int { return g.answers }
func unreadOf(g *group) int  { return g.unread }

// heaviest returns the connection, of those that are eligible, whose network has most of
// something, and in it whose address has: the one that is missed least, and the oldest
// of equals. It returns nil if none is eligible.
func (t *table) heaviest(of func(*group) int, eligible func(*conn) bool) *conn {
	var first *conn
	for c := range t.conns {
		if eligible(c) && (first == nil || before(c, first, of)) {
			first = c
		}
	}
	return first
}

func before(a, b *conn, of func(*group) int) bool {
	return cmp.Or(
		heavier(a, b, of),
		cmp.Compare(b.expendable(), a.expendable()),
		a.since.Compare(b.since),
		cmp.Compare(a.number, b.number),
	) < 0
}

// heavier is negative if the network of a has more than that of b, or its address where
// the networks have as much, and positive if it is the other way round.
func heavier(a, b *conn, of func(*group) int) int {
	return cmp.Or(cmp.Compare(of(b.network), of(a.network)), cmp.Compare(of(b.address), of(a.address)))
}

// close cuts all connections off, and every later one.
func (t *table) close() {
	t.mu.Lock()
	t.closed = true
	left := make([]*conn, 0, len(t.conns))
	for c := range t.conns {
		left = append(left, c)
		t.remove(c)
	}
	t.mu.Unlock()
	for _, c := range left {
		c.cut()
	}
}

// answering begins a large answer on a connection, for which another one's reader may be
// cut off.
func (t *table) answering(c *conn) {
	t.mu.Lock()
	if _, ok := t.conns[c]; !ok {
		t.mu.Unlock()
		return
	}
	t.count(c, group{answers: 1})
	c.answers++
	if c.answers == 1 {
		c.since = time.Now()
	}
	var victim *conn
	why := reasonSourceAnswers
	if c.address.answers > t.limits.sourceAnswers {
		victim = t.heaviest(answersOf, func(o *conn) bool { return o.address == c.address && o.answers > 0 })
	} else if t.sum.answers > t.limits.answers {
		why, victim = reasonAnswers, t.heaviest(answersOf, func(o *conn) bool { return o.answers > 0 })
	}
	t.end(victim, why)
}

// answered ends what answering began.
func (t *table) answered(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.conns[c]; ok {
		t.count(c, group{answers: -1})
		c.answers--
	}
}
