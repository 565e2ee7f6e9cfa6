// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"math"
	"net/netip"
	"time"
)

// socketIndex are the sockets of pods by their ends: 131,072 of them, whom four hostile pods
// make, take some 20 MiB. So it has no pointers, and is filled anew in place.
type socketIndex struct {
	uses  map[ends]use
	pods  map[string]uint32 // numbers by UID
	users []user            // the first is nobody
	known map[user]uint32   // their numbers
	room  int               // the most that uses has had since it was made
	// since is when it was filled first, from which all times are reckoned: so they keep to
	// the monotonic clock, whatever is done to the other.
	since time.Time
}

// user is who uses a port.
type user struct{ container, process string }

// end is an address with its port, IPv4 mapped into IPv6; zero for none, as one that is
// nothing else than unspecified is marked.
type end struct {
	address [16]byte
	port    uint16
	there   bool
}

func endOf(a netip.AddrPort) end {
	if !a.IsValid() {
		return end{}
	}
	return end{a.Addr().As16(), a.Port(), true}
}

func (e end) addrPort() netip.AddrPort {
	if !e.there {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(e.address).Unmap(), e.port)
}

// ends are a socket's pod, protocol, addresses and ports.
type ends struct {
	pod         uint32
	protocol    uint8
	local, peer end
}

func endsOf(pod uint32, protocol uint8, local, peer netip.AddrPort) ends {
	return ends{pod, protocol, endOf(local), endOf(peer)}
}

// moment is a time since the index's, in nanoseconds; of the zero time it is the least.
type moment int64

// always is the zero time's moment: open, if it is the end of a socket.
const always = moment(math.MinInt64)

// use is whose the sockets of some ends are.
type use struct {
	now, before owner
	owners      uint32
	shared      bool
}

type owner struct {
	since, until moment
	user         uint32 // index of users
}

// shrink gives a map up that is mostly empty.
func (x *socketIndex) shrink() {
	if had := len(x.uses); had < x.room/4 {
		x.uses, x.room = make(map[ends]use, had), had
	}
}

// clear forgets all sockets.
func (x *socketIndex) clear() {
	if x.uses == nil {
		*x = socketIndex{uses: make(map[ends]use), pods: make(map[string]uint32), known: make(map[user]uint32), since: time.Now()}
	}
	clear(x.uses)
	clear(x.pods)
	clear(x.known)
	clear(x.users)
	x.users = append(x.users[:0], user{})
}

func (x *socketIndex) add(socket *Socket, names *cgroupNames) {
	pod, now := x.owner(&socket.Now, names)
	if pod == "" {
		return
	}
	u := use{shared: socket.Shared, owners: uint32(socket.Owners), now: now}
	if socket.Owners > 1 {
		var other string
		if other, u.before = x.owner(&socket.Before, names); other != pod {
			u.before.user = 0
		}
	}
	e := endsOf(x.pod(pod), socket.Protocol, socket.Local, socket.Peer)
	if _, twice := x.uses[e]; twice { // in two network namespaces of one pod
		u.shared = true
	}
	x.uses[e] = u
	x.room = max(x.room, len(x.uses))
}

func (x *socketIndex) owner(o *SocketOwner, names *cgroupNames) (pod string, _ owner) {
	pod, container := names.of(o.Cgroup)
	return pod, owner{x.moment(o.Since), x.moment(o.Until), x.number(user{container, o.Command})}
}

func (x *socketIndex) moment(t time.Time) moment {
	if t.IsZero() {
		return always
	}
	return moment(t.Sub(x.since))
}

func (x *socketIndex) pod(uid string) uint32 {
	number, known := x.pods[uid]
	if !known {
		number = uint32(len(x.pods))
		x.pods[uid] = number
	}
	return number
}

func (x *socketIndex) number(u user) uint32 {
	if u == (user{}) {
		return 0
	}
	number, known := x.known[u]
	if !known {
		number = uint32(len(x.users))
		x.users, x.known[u] = append(x.users, u), number
	}
	return number
}

// span is the time of a flow.
type span struct{ first, last moment }

func (x *socketIndex) span(record *Record) span {
	return span{x.moment(record.First), x.moment(record.Last)}
}

// socketSlack is by how much stamps of sockets and of packets, of the same clock but
// read at two times, can differ.
const socketSlack = moment(20 * time.Millisecond)

// isBefore reports whether a flow's moment is certainly before one of a socket's.
func (m moment) isBefore(since moment) bool { return m+socketSlack < since }

// isAfter reports whether a flow's moment is certainly after the end of a socket.
func (m moment) isAfter(until moment) bool { return m > until+socketSlack }

// overlaps reports whether sockets were open at some time of a flow.
func (u *use) overlaps(s span) bool {
	return !s.last.isBefore(u.since()) && (u.open() || !s.first.isAfter(u.now.until))
}

// covers reports whether they were to the end of a flow.
func (u *use) covers(s span) bool { return u.open() || !s.last.isAfter(u.now.until) }

func (u *use) open() bool { return u.now.until == always }

// since returns from when on the owners are known.
func (u *use) since() moment {
	if u.owners > 1 {
		return u.before.since
	}
	return u.now.since
}

// user returns the one user of all of a flow's time. strict is whether nothing of the
// flow can be older than the first socket, but by somebody who is not known.
func (x *socketIndex) user(u *use, during span, strict bool) user {
	switch {
	case u.shared, during.first.isBefore(u.since()) && (strict || u.owners > 2):
		return user{}
	case u.owners < 2, during.first.isAfter(u.before.until):
		return x.users[u.now.user]
	case during.last.isBefore(u.now.since):
		return x.users[u.before.user]
	}
	// It changed hands meanwhile, perhaps between processes of one container.
	now, before := x.users[u.now.user], x.users[u.before.user]
	if now == before {
		return now
	}
	if now.container == before.container {
		return user{container: now.container}
	}
	return user{}
}
