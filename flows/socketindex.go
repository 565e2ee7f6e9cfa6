// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"bytes"
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"
)

// socketIndex are the sockets of pods by their ends: 131,072 of them, whom four hostile pods
// make, take 10 MiB. So they lie in a sorted list, filled anew in place, and not in a map, which
// takes three times as much; and no owner before is kept where there was none.
type socketIndex struct {
	all     []socketUse // in the order of their ends, one each
	befores []owner
	pods    map[string]uint32 // numbers by UID
	users   []user            // the first is nobody
	known   map[user]uint32   // their numbers
	// since is when it was filled first, from which all times are reckoned: so they keep to
	// the monotonic clock, whatever is done to the other.
	since time.Time
}

// socketUse is an entry of the list.
type socketUse struct {
	ends
	use
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

func (e end) number() uint8 {
	if e.there {
		return 1
	}
	return 0
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

// compare orders ends: what tells most of them apart comes first.
func (e *ends) compare(o *ends) int {
	return cmp.Or(
		cmp.Compare(e.local.port, o.local.port), cmp.Compare(e.peer.port, o.peer.port), cmp.Compare(e.pod, o.pod),
		bytes.Compare(e.peer.address[:], o.peer.address[:]), bytes.Compare(e.local.address[:], o.local.address[:]),
		cmp.Compare(e.protocol, o.protocol), cmp.Compare(e.local.number(), o.local.number()), cmp.Compare(e.peer.number(), o.peer.number()))
}

// use is whose the sockets of some ends are.
type use struct {
	now    owner
	before uint32 // index of befores
	owners uint8  // three stand for more
	shared bool
}

// mostOwners are as many as it matters how many they are.
const mostOwners = 3

type owner struct {
	since, until moment
	user         uint32 // index of users
}

// spareSockets is how many more sockets there may be room for than four times as many as there
// are before the list is given up.
const spareSockets = 1024

// clear forgets all sockets.
func (x *socketIndex) clear() {
	if x.since.IsZero() {
		*x = socketIndex{pods: make(map[string]uint32), known: make(map[user]uint32), since: time.Now()}
	}
	if had := len(x.all); cap(x.all) > 4*had+spareSockets {
		x.all = make([]socketUse, 0, had)
	}
	clear(x.pods)
	clear(x.known)
	clear(x.users)
	x.all, x.befores, x.users = x.all[:0], x.befores[:0], append(x.users[:0], user{})
}

func (x *socketIndex) add(socket *Socket, names *cgroupNames) {
	pod, now := x.owner(&socket.Now, names)
	if pod == "" {
		return
	}
	u := use{shared: socket.Shared, owners: uint8(min(socket.Owners, mostOwners)), now: now}
	if socket.Owners > 1 {
		other, before := x.owner(&socket.Before, names)
		if other != pod {
			before.user = 0
		}
		u.before = uint32(len(x.befores))
		x.befores = append(x.befores, before)
	}
	x.all = append(x.all, socketUse{endsOf(x.pod(pod), socket.Protocol, socket.Local, socket.Peer), u})
}

// sort puts the list in order once all are in it. The same ends twice are in two network
// namespaces of one pod.
func (x *socketIndex) sort() {
	slices.SortFunc(x.all, func(a, b socketUse) int { return a.ends.compare(&b.ends) })
	kept := x.all[:0]
	for _, s := range x.all {
		if last := len(kept) - 1; last >= 0 && kept[last].ends == s.ends {
			kept[last].shared = true
			continue
		}
		kept = append(kept, s)
	}
	x.all = kept
}

// find returns nil if there are none.
func (x *socketIndex) find(e ends) *use {
	at, found := slices.BinarySearchFunc(x.all, &e, func(s socketUse, e *ends) int { return s.ends.compare(e) })
	if !found {
		return nil
	}
	return &x.all[at].use
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
func (x *socketIndex) overlaps(u *use, s span) bool {
	return !s.last.isBefore(x.begin(u)) && (u.open() || !s.first.isAfter(u.now.until))
}

// covers reports whether they were to the end of a flow.
func (u *use) covers(s span) bool { return u.open() || !s.last.isAfter(u.now.until) }

func (u *use) open() bool { return u.now.until == always }

// begin returns from when on the owners are known.
func (x *socketIndex) begin(u *use) moment {
	if u.owners > 1 {
		return x.befores[u.before].since
	}
	return u.now.since
}

// user returns the one user of all of a flow's time. strict is whether nothing of the
// flow can be older than the first socket, but by somebody who is not known.
func (x *socketIndex) user(u *use, during span, strict bool) user {
	switch {
	case u.shared, during.first.isBefore(x.begin(u)) && (strict || u.owners > 2):
		return user{}
	case u.owners < 2, during.first.isAfter(x.befores[u.before].until):
		return x.users[u.now.user]
	case during.last.isBefore(u.now.since):
		return x.users[x.befores[u.before].user]
	}
	// It changed hands meanwhile, perhaps between processes of one container.
	now, before := x.users[u.now.user], x.users[x.befores[u.before].user]
	if now == before {
		return now
	}
	if now.container == before.container {
		return user{container: now.container}
	}
	return user{}
}
