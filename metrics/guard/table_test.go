// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
)

// fake is a connection that only has an address and an end.
type fake struct {
	net.Conn
	remote net.Addr
	closed bool
}

func (f *fake) RemoteAddr() net.Addr { return f.remote }

func (f *fake) Close() error {
	f.closed = true
	return nil
}

// refusals counts what a table refuses.
type refusals map[reason]int

func (r refusals) add(why reason, _ origin) { r[why]++ }

func from(address string) *fake {
	return &fake{remote: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), uint16(rand.Uint32())))}
}

func small(connections, source int) limits {
	l := defaultLimits(1 << 20)
	l.connections, l.sourceConnections = connections, source
	return l
}

// admit takes in a connection from each address, and returns those that got in.
func admit(t *table, addresses ...string) (all []*conn) {
	for _, address := range addresses {
		all = append(all, t.admit(from(address)))
	}
	return all
}

func open(c *conn) bool { return !c.Conn.(*fake).closed }

func TestOrigin(t *testing.T) {
	for _, c := range []struct{ peer, address, network string }{
		{"192.0.2.1", "192.0.2.1/32", "192.0.2.1/32"},
		{"::ffff:192.0.2.1", "192.0.2.1/32", "192.0.2.1/32"},
		{"2001:db8:1:2:3::4", "2001:db8:1:2:3::4/128", "2001:db8:1:2::/64"},
		{"fe80::1%eth0", "fe80::1/128", "fe80::/64"},
	} {
		got := originOf(from(c.peer).remote)
		if got.address.String() != c.address || got.network.String() != c.network {
			t.Errorf("%s: got %v in %v, want %s in %s", c.peer, got.address, got.network, c.address, c.network)
		}
	}
	if got := originOf(&net.UnixAddr{Net: "unix"}); got != (origin{}) || got.String() != "local" {
		t.Errorf("unix socket: got %v, want no address", got)
	}
}

// A source that has its maximum loses the one that it needs least, whichever port it uses,
// and nobody else does.
func TestSourceLosesItsOwn(t *testing.T) {
	counts := make(refusals)
	table := newTable(small(10, 3), counts.add)
	other := admit(table, "192.0.2.9")
	mine := admit(table, "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1")
	mine[0].handles(1) // is being answered
	late := admit(table, "192.0.2.1")
	if got := []bool{open(mine[0]), open(mine[1]), open(mine[2]), open(late[0]), open(other[0])}; !slices.Equal(got, []bool{true, false, true, true, true}) {
		t.Errorf("open: got %v, want the oldest idle one of the source ended", got)
	}
	mine[2].handles(1)
	late[0].handles(1)
	last := admit(table, "192.0.2.1")
	if open(mine[0]) || !open(last[0]) || !open(other[0]) {
		t.Errorf("with all at work: got %v and %v, want the oldest ended and the new one open", open(mine[0]), open(last[0]))
	}
	if counts[reasonSourceConnections] != 2 || len(counts) != 1 {
		t.Errorf("got %v, want 2 of %s", counts, reasonSourceConnections)
	}
}

// Who has few connections always gets in, and loses none to those who have more. Where each
// has one, as with the addresses of one network of IPv6, the oldest idle one makes room.
func TestFewAreServedBesideMany(t *testing.T) {
	for _, c := range []struct {
		name    string
		hostile func(n int) string
		honest  string
		keeps   bool
	}{
		{"some addresses of IPv4", func(n int) string { return fmt.Sprintf("198.51.100.%d", n%8) }, "192.0.2.1", true},
		{"each of a network of IPv6", func(n int) string { return fmt.Sprintf("2001:db8::%x", n+1) }, "2001:db8:0:1::1", true},
		{"some of the same network", func(n int) string { return fmt.Sprintf("2001:db8::1:%x", n%8) }, "2001:db8::1", true},
		{"each of the same network", func(n int) string { return fmt.Sprintf("2001:db8::1:%x", n) }, "2001:db8::1", false},
		{"each of IPv4", func(n int) string { return fmt.Sprintf("198.51.%d.%d", n/250, n%250) }, "192.0.2.1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			counts := make(refusals)
			table := newTable(small(32, 8), counts.add)
			kept := admit(table, c.honest)
			for n := range 1000 {
				if admit(table, c.hostile(n))[0] == nil {
					t.Fatal("a hostile connection was refused: an earlier one of its own should have been ended")
				}
			}
			late := admit(table, c.honest)
			if open(kept[0]) != c.keeps || late[0] == nil || !open(late[0]) {
				t.Errorf("earlier and later one: got %v and %v, want %v and true", open(kept[0]), late[0] != nil, c.keeps)
			}
			if counts[reasonConnections] == 0 || table.sum.conns != 32 {
				t.Errorf("got %d of %d refused for places, want some, and all places taken", counts[reasonConnections], table.sum.conns)
			}
		})
	}
}

// Where each has one, the oldest idle one makes room.
func TestOldestMakesRoom(t *testing.T) {
	table := newTable(small(3, 2), refusals{}.add)
	all := admit(table, "192.0.2.1", "192.0.2.2", "192.0.2.3")
	all[0].handles(1)
	admit(table, "192.0.2.4")
	if !open(all[0]) || open(all[1]) || !open(all[2]) {
		t.Errorf("open: got %v, %v, %v, want the second ended", open(all[0]), open(all[1]), open(all[2]))
	}
}

// A reader of large answers loses its oldest, of its source or of who has most.
func TestAnswersAreBounded(t *testing.T) {
	limits := small(100, 50)
	limits.answers, limits.sourceAnswers = 6, 4
	counts := make(refusals)
	table := newTable(limits, counts.add)
	start := func(address string) *conn {
		c := admit(table, address)[0]
		table.answering(c)
		return c
	}
	honest := start("192.0.2.1")
	first := start("198.51.100.1")
	for range 4 {
		start("198.51.100.1")
	}
	if open(first) || counts[reasonSourceAnswers] != 1 {
		t.Errorf("beyond a source's: got %v, want its oldest ended", counts)
	}
	for range 3 {
		start("198.51.100.2")
	}
	if !open(honest) || counts[reasonAnswers] != 2 || table.sum.answers != 6 {
		t.Errorf("beyond all: got %v and %d answers, want 2 of others ended and 6 left", counts, table.sum.answers)
	}
	table.answered(honest)
	if table.sum.answers != 5 {
		t.Errorf("after one has ended: got %d answers, want 5", table.sum.answers)
	}
}

// Unfinished requests together are bounded, and the one who has sent most of them pays.
func TestUnreadIsBounded(t *testing.T) {
	limits := small(100, 50)
	limits.unread = 1000
	counts := make(refusals)
	table := newTable(limits, counts.add)
	honest := admit(table, "192.0.2.1")[0]
	honest.received(100)
	var hostile []*conn
	for range 30 {
		c := admit(table, "198.51.100.1")[0]
		hostile = append(hostile, c)
		c.received(100)
		if table.sum.unread > limits.unread {
			t.Fatalf("got %d unread bytes, want at most %d", table.sum.unread, limits.unread)
		}
	}
	if !open(honest) || open(hostile[0]) || counts[reasonHeaders] != 21 {
		t.Errorf("got %v, want 21 hostile ones ended and the honest one open", counts)
	}
}

func TestLimitsFollowDescriptors(t *testing.T) {
	for descriptors, want := range map[uint64]int{1 << 20: 256, 1024: 256, 400: 100, 2: 1} {
		if got := defaultLimits(descriptors).connections; got != want {
			t.Errorf("with %d descriptors: got %d connections, want %d", descriptors, got, want)
		}
	}
}

// Whatever happens in whatever order, the counts are those of the connections that are
// there, no limit is exceeded, and nothing is left of those that went.
func TestTableKeepsCount(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	limits := small(20, 6)
	limits.answers, limits.sourceAnswers, limits.unread, limits.http2 = 8, 3, 2000, 5
	table := newTable(limits, refusals{}.add)
	var live []*conn
	for step := range 20_000 {
		switch n := random.IntN(8); {
		case n < 2 || len(live) == 0:
			address := fmt.Sprintf("2001:db8:0:%x::%x", random.IntN(3), random.IntN(4))
			if random.IntN(2) == 0 {
				address = fmt.Sprintf("192.0.2.%d", random.IntN(5))
			}
			if c := table.admit(from(address)); c != nil {
				live = append(live, c)
			}
		default:
			act(table, live[random.IntN(len(live))], n, random)
		}
		live = slices.DeleteFunc(live, func(c *conn) bool { return !open(c) })
		check(t, table, live, step)
	}
	for _, c := range live {
		c.Close()
	}
	check(t, table, nil, -1)
	if len(table.groups) != 0 {
		t.Errorf("groups of nobody: got %v, want none", slices.Collect(maps.Keys(table.groups)))
	}
}

func act(table *table, c *conn, n int, random *rand.Rand) {
	switch n {
	case 2:
		c.Close()
	case 3:
		c.received(random.IntN(500))
	case 4:
		table.answering(c)
	case 5:
		if c.answers > 0 {
			table.answered(c)
		}
	case 6:
		c.state(c, 1) // http.StateActive
	default:
		c.speaksHTTP2()
	}
}

func check(t *testing.T, table *table, live []*conn, step int) {
	t.Helper()
	var want group
	sources := make(map[netip.Prefix]group)
	for _, c := range live {
		mine := group{conns: 1, answers: c.answers, unread: c.unread}
		if c.http2 {
			mine.http2 = 1
		}
		want.add(mine)
		of := sources[c.origin.address]
		of.add(mine)
		sources[c.origin.address] = of
	}
	if table.sum != want || len(table.conns) != len(live) {
		t.Fatalf("step %d: got %+v of %d, want %+v of %d", step, table.sum, len(table.conns), want, len(live))
	}
	if l := table.limits; want.conns > l.connections || want.answers > l.answers || want.unread > l.unread || want.http2 > l.http2 {
		t.Fatalf("step %d: got %+v, want no more than %+v", step, want, l)
	}
	for address, of := range sources {
		if *table.groups[address] != of || of.conns > table.limits.sourceConnections || of.answers > table.limits.sourceAnswers {
			t.Fatalf("step %d: %v: got %+v, want %+v within %+v", step, address, *table.groups[address], of, table.limits)
		}
	}
}
