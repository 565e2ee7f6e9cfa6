// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"cmp"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
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

// sockets tells the container and process of a flow by the sockets of its pod.
type sockets struct {
	reader     SocketReader
	containers Containers
	log        *slog.Logger
	broken     bool

	mu    sync.RWMutex // begin alone writes
	index socketIndex
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
	s.mu.Lock()
	defer s.mu.Unlock()
	var names *cgroupNames
	err := s.reader.Sockets(
		func() {
			s.index.clear()
			names = namesOf(s.containers)
		},
		func(socket *Socket) { s.index.add(socket, names) })
	s.index.sort()
	switch {
	case err != nil && !s.broken:
		s.log.Warn("read sockets, without which the container of a pod with several is not known", "error", err)
	case err == nil && s.broken:
		s.log.Info("sockets can be read again")
	}
	s.broken = err != nil
}

// of returns who used the pod's end of a flow during all of its time. What is not
// certain is empty.
func (s *sockets) of(pod *Pod, record *Record) user {
	if s == nil || len(s.index.all) == 0 {
		return user{}
	}
	local, peer := netip.AddrPortFrom(record.Key.Local()), netip.AddrPortFrom(record.Key.Peer())
	number, known := s.index.pods[pod.UID]
	if !known || local.Port() == 0 || peer.Port() == 0 {
		return user{} // a later fragment, or no ports at all
	}
	during := s.index.span(record)
	e := endsOf(number, record.Key.Protocol, local, peer)
	switch e.protocol {
	case ProtocolTCP:
		// What belongs to a connection comes before it is accepted and after its end too.
		if u := s.index.find(e); u != nil {
			return s.index.user(u, during, false)
		}
		u, _ := s.bound(number, e.protocol, local, during)
		return u
	case ProtocolUDP:
		u, whole := s.bound(number, e.protocol, local, during)
		if whole {
			return u
		}
		// Who is known by the peer may have got the port after the other had closed.
		if by := s.index.find(endsOf(number, e.protocol, netip.AddrPort{}, peer)); by != nil && s.index.overlaps(by, during) {
			if u != (user{}) {
				return user{}
			}
			return s.index.user(by, during, true)
		}
		return u
	}
	return user{}
}

// bound returns the user of the sockets that are bound to the local end: the kernel gives
// a packet to the one that says most about it. whole is whether they were there during
// all of the flow's time.
func (s *sockets) bound(pod uint32, protocol uint8, local netip.AddrPort, during span) (_ user, whole bool) {
	for _, address := range [...]netip.Addr{local.Addr(), anyOf(local.Addr()), netip.IPv6Unspecified()} {
		u := s.index.find(endsOf(pod, protocol, netip.AddrPortFrom(address, local.Port()), netip.AddrPort{}))
		if u != nil && s.index.overlaps(u, during) {
			return s.index.user(u, during, true), u.covers(during)
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
	s := p.attribution.sockets
	if s == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	number, known := s.index.pods[pod.UID]
	if !known {
		return nil
	}
	for i := range s.index.all {
		u := &s.index.all[i]
		if u.pod != number || u.peer != (end{}) || !u.open() {
			continue
		}
		l := Listener{Protocol: protocolOf(u.protocol), Local: u.local.addrPort()}
		if !u.shared {
			l.Container, l.Command = s.index.users[u.now.user].container, s.index.users[u.now.user].process
		}
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(a.Local.Port(), b.Local.Port()), cmp.Compare(a.Protocol, b.Protocol), a.Local.Compare(b.Local))
	})
	return all
}
