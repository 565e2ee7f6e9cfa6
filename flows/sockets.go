// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"cmp"
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

// Socket is what the kernel side tells of the sockets that have the same addresses
// and ports, one after the other or at once.
type Socket struct {
	Protocol uint8 // IP protocol number: TCP or UDP
	// Local and Peer are its ends, IPv4 unmapped. A TCP connection has both, a listening
	// TCP socket and a UDP socket the local one alone; where the kernel side could not see
	// the port of a UDP socket, it is known by its peer. One that is bound to any address
	// has the unspecified one, of IPv6 if it takes both.
	Local, Peer netip.AddrPort
	// Shared is whether sockets of several cgroups were open at once.
	Shared bool
	// Owners is how many there were, Now the last of them, Before the one before it.
	Owners      int
	Now, Before SocketOwner
}

// SocketOwner is whose a socket is.
type SocketOwner struct {
	// Cgroup is the id of the cgroup in the v2 hierarchy, 0 if it is not known.
	Cgroup uint64
	// Command is the name of the process, empty if it is not known.
	Command string
	// Since and Until bound the time; Until is zero while a socket is open.
	Since, Until time.Time
}

// SocketReader reads the sockets of the kernel side.
type SocketReader interface {
	// Sockets calls visit for those that are open, and those that were in the last minute or
	// so. Before the first, and if it has to begin anew, it calls begin, and with an error too
	// where nothing is to be left of what was visited. visit keeps nothing that it is given.
	Sockets(begin func(), visit func(*Socket)) error
}

// Containers know whose a cgroup is. They are safe for concurrent use.
type Containers interface {
	// Container returns the UID of the pod and the name of the container; both are empty
	// for a cgroup that is none of a pod's, the name while it is not known.
	Container(cgroup uint64) (pod, name string)
}

// cgroupNames are the answers of [Containers], each asked for once: many sockets have one cgroup, and
// for that of a static pod all pods are looked at, of which anybody may make many.
type cgroupNames struct {
	containers Containers
	known      map[uint64]cgroupName
}

type cgroupName struct{ pod, container string }

func namesOf(containers Containers) *cgroupNames {
	return &cgroupNames{containers, make(map[uint64]cgroupName)}
}

func (n *cgroupNames) of(cgroup uint64) (pod, container string) {
	name, known := n.known[cgroup]
	if !known {
		name.pod, name.container = n.containers.Container(cgroup)
		n.known[cgroup] = name
	}
	return name.pod, name.container
}

// user is who uses a port.
type user struct{ container, process string }

// sockets tells the container and process of a flow by the sockets of its pod.
type sockets struct {
	reader     SocketReader
	containers Containers
	log        *slog.Logger
	broken     bool
	byEnds     map[ends]*use // made anew by each epoch, and not changed then
}

// ends are a socket's pod, protocol, addresses and ports.
type ends struct {
	pod         string // UID
	protocol    uint8
	local, peer netip.AddrPort
}

// use is whose the sockets of some ends are.
type use struct {
	shared      bool
	owners      int
	now, before owner
}

type owner struct {
	user
	since, until time.Time
}

// newSockets returns nil without a reader.
func newSockets(reader SocketReader, containers Containers, log *slog.Logger) *sockets {
	if reader == nil || containers == nil {
		return nil
	}
	return &sockets{reader: reader, containers: containers, log: log}
}

// begin is called before the flows of an epoch.
func (s *sockets) begin() {
	if s == nil {
		return
	}
	var names *cgroupNames
	known := len(s.byEnds)
	err := s.reader.Sockets(
		func() { s.byEnds, names = make(map[ends]*use, known), namesOf(s.containers) },
		func(socket *Socket) { s.add(socket, names) })
	switch {
	case err != nil && !s.broken:
		s.log.Warn("read sockets, without which the container of a pod with several is not known", "error", err)
	case err == nil && s.broken:
		s.log.Info("sockets can be read again")
	}
	s.broken = err != nil
}

func (s *sockets) add(socket *Socket, names *cgroupNames) {
	pod, now := names.owner(&socket.Now)
	if pod == "" {
		return
	}
	u := &use{shared: socket.Shared, owners: socket.Owners, now: now}
	if socket.Owners > 1 {
		var other string
		if other, u.before = names.owner(&socket.Before); other != pod {
			u.before.user = user{}
		}
	}
	e := ends{pod, socket.Protocol, socket.Local, socket.Peer}
	if _, twice := s.byEnds[e]; twice { // in two network namespaces of one pod
		u.shared = true
	}
	s.byEnds[e] = u
}

func (n *cgroupNames) owner(o *SocketOwner) (pod string, _ owner) {
	pod, container := n.of(o.Cgroup)
	return pod, owner{user{container, o.Command}, o.Since, o.Until}
}

// of returns who used the pod's end of a flow during all of its time. What is not
// certain is empty.
func (s *sockets) of(pod *Pod, record *Record) user {
	if s == nil || len(s.byEnds) == 0 {
		return user{}
	}
	local, peer := netip.AddrPortFrom(record.Key.Local()), netip.AddrPortFrom(record.Key.Peer())
	if local.Port() == 0 || peer.Port() == 0 {
		return user{} // a later fragment, or no ports at all
	}
	e := ends{pod: pod.UID, protocol: record.Key.Protocol, local: local, peer: peer}
	switch e.protocol {
	case ProtocolTCP:
		// What belongs to a connection comes before it is accepted and after its end too.
		if u := s.byEnds[e]; u != nil {
			return u.during(record, false)
		}
		e.peer = netip.AddrPort{}
		u, _ := s.bound(e, record)
		return u
	case ProtocolUDP:
		e.peer = netip.AddrPort{}
		u, whole := s.bound(e, record)
		if whole {
			return u
		}
		// Who is known by the peer may have got the port after the other had closed.
		if by := s.byEnds[ends{pod: e.pod, protocol: e.protocol, peer: peer}]; by != nil && by.overlaps(record) {
			if u != (user{}) {
				return user{}
			}
			return by.during(record, true)
		}
		return u
	}
	return user{}
}

// bound returns the user of the sockets that are bound to the local end: the kernel gives
// a packet to the one that says most about it. whole is whether they were there during
// all of the flow's time.
func (s *sockets) bound(e ends, record *Record) (_ user, whole bool) {
	address, port := e.local.Addr(), e.local.Port()
	for _, address := range [...]netip.Addr{address, anyOf(address), netip.IPv6Unspecified()} {
		e.local = netip.AddrPortFrom(address, port)
		if u := s.byEnds[e]; u != nil && u.overlaps(record) {
			return u.during(record, true), u.covers(record)
		}
	}
	return user{}, false
}

func anyOf(address netip.Addr) netip.Addr {
	if address.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// socketSlack is by how much stamps of sockets and of packets, of the same clock but
// read at two times, can differ.
const socketSlack = 20 * time.Millisecond

// overlaps reports whether sockets were open at some time of a flow.
func (u *use) overlaps(record *Record) bool {
	return !record.Last.Before(u.since().Add(-socketSlack)) && (u.open() || !record.First.After(u.now.until.Add(socketSlack)))
}

// covers reports whether they were to the end of a flow.
func (u *use) covers(record *Record) bool {
	return u.open() || !record.Last.After(u.now.until.Add(socketSlack))
}

func (u *use) open() bool { return u.now.until.IsZero() }

// since returns from when on the owners are known.
func (u *use) since() time.Time {
	if u.owners > 1 {
		return u.before.since
	}
	return u.now.since
}

// during returns the one user of all of a flow's time. strict is whether nothing of the
// flow can be older than the first socket, but by somebody who is not known.
func (u *use) during(record *Record, strict bool) user {
	first, last := record.First, record.Last
	switch {
	case u.shared, first.Before(u.since().Add(-socketSlack)) && (strict || u.owners > 2):
		return user{}
	case u.owners < 2, first.After(u.before.until.Add(socketSlack)):
		return u.now.user
	case last.Before(u.now.since.Add(-socketSlack)):
		return u.before.user
	}
	// It changed hands meanwhile, perhaps between processes of one container.
	var both user
	if u.now.container == u.before.container {
		both.container = u.now.container
	}
	if u.now.user == u.before.user {
		both.process = u.now.process
	}
	return both
}

// Listener is a local end of a pod that others can send to.
type Listener struct {
	Protocol Protocol
	// Local is its address and port; the unspecified address of IPv6 takes IPv4 too.
	Local netip.AddrPort
	// Container and Command are empty where they are not known, or where several
	// containers have the port at once.
	Container, Command string
}

// Listeners returns the TCP sockets of a pod that listen, and its bound UDP sockets, by
// port, as they were at the last epoch.
func (p *Publisher) Listeners(pod *Pod) (all []Listener) {
	p.mu.Lock()
	byEnds := p.byEnds
	p.mu.Unlock()
	for e, u := range byEnds {
		if e.pod != pod.UID || e.peer.IsValid() || !u.open() {
			continue
		}
		l := Listener{Protocol: protocolOf(e.protocol), Local: e.local}
		if !u.shared {
			l.Container, l.Command = u.now.container, u.now.process
		}
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(a.Local.Port(), b.Local.Port()), cmp.Compare(a.Protocol, b.Protocol), a.Local.Compare(b.Local))
	})
	return all
}
