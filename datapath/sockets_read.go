// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
	"golang.org/x/sys/unix"
)

// closedSocket is an entry all of whose sockets are closed, and since when.
type closedSocket struct {
	key   bpf.SocketSocketKey
	until time.Time
	share uint16 // of the map, that it counts towards
}

// Sockets implements [flows.SocketReader]. What is older than the programs is told until
// one of the same ends has come. It also forgets those that were closed long ago, or
// before all flows that are still to be read if the map is half full.
//
// It reads none where the programs are not attached, as a foreign one would be switched off.
func (s *Sockets) Sockets(begin func(), visit func(*flows.Socket)) error {
	begin()
	if err := s.follow(); err != nil || s.Foreign() != nil {
		return err
	}
	began := s.now()
	clock, err := readClock(s.clock)
	if err != nil {
		return err
	}
	err = s.readAll(
		func() {
			s.read, s.closed = 0, spare(s.closed, len(s.closed))
			begin()
		},
		func(keys []bpf.SocketSocketKey, owners []bpf.SocketSocketOwners) {
			s.read += len(keys)
			for i := range keys {
				delete(s.earlier, keys[i])
				socket := s.decode(&keys[i], &owners[i], clock)
				visit(&socket)
				if !socket.Now.Until.IsZero() {
					s.closed = append(s.closed, closedSocket{keys[i], socket.Now.Until, owners[i].Now.Share})
				}
			}
		})
	if err != nil {
		begin()
		return err
	}
	forgotten, err := s.forget()
	err = errors.Join(err, s.shares.end())
	s.hurry(began, forgotten)
	s.needed = began // the set that is frozen next has nothing older
	for _, socket := range s.earlier {
		visit(&socket)
	}
	return err
}

// readAll reads all entries, as [batchReader.read] does, and reckons their shares, until
// whoever calls it ends that.
func (s *Sockets) readAll(begin func(), visit func([]bpf.SocketSocketKey, []bpf.SocketSocketOwners)) error {
	var failed error
	err := s.reader.read(
		func() {
			failed = s.shares.begin()
			begin()
		},
		func(keys []bpf.SocketSocketKey, owners []bpf.SocketSocketOwners) {
			for i := range owners {
				s.shares.add(owners[i].Now.Share)
			}
			visit(keys, owners)
		})
	return errors.Join(err, failed)
}

// forget deletes the entries of sockets that were closed long ago. One that is opened
// again at this very moment is lost: no flow has its addresses and ports for as long.
func (s *Sockets) forget() (forgotten int, err error) {
	before := s.now().Add(-socketMemory)
	if s.read > int(s.options.MaxSockets)/2 {
		before = s.needed.Add(-socketSlack)
	}
	var old []bpf.SocketSocketKey
	var shares []uint16
	for _, closed := range s.closed {
		if closed.until.Before(before) {
			old, shares = append(old, closed.key), append(shares, closed.share)
		}
	}
	if len(old) == 0 {
		return 0, nil
	}
	forgotten, err = s.objects.Sockets.BatchDelete(old, nil)
	for _, share := range shares[:forgotten] {
		s.shares.remove(share)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return forgotten, fmt.Errorf("forget closed sockets: %w", err)
	}
	return forgotten, nil
}

// hurry asks for the next drain before its time if the map would be half full
// by then, as sockets come now: what was closed is forgotten once its flows are read.
func (s *Sockets) hurry(now time.Time, forgotten int) {
	room, grown := int(s.options.MaxSockets), s.read-s.kept
	s.kept = s.read - forgotten
	if grown <= 0 {
		return
	}
	each := time.Duration(float64(now.Sub(s.needed)) / float64(grown)) // comes after the one before
	if s.interval < each*time.Duration(room/8) {
		return
	}
	if in := each * time.Duration(room/2-s.kept); in < s.interval {
		time.AfterFunc(max(in, s.interval/8), s.drainEarly)
	}
}

// decode returns what a map entry says.
func (s *Sockets) decode(key *bpf.SocketSocketKey, owners *bpf.SocketSocketOwners, clock clock) flows.Socket {
	socket := flows.Socket{
		Protocol: key.Protocol, Shared: owners.Shared != 0, Owners: int(owners.Owners),
		Local: decodeEnd(key.Local, key.LocalPort), Peer: decodeEnd(key.Peer, key.PeerPort),
		Now: s.commands.owner(&owners.Now, clock),
	}
	if owners.Open > 0 {
		socket.Now.Until = time.Time{}
	}
	if owners.Owners > 1 {
		socket.Before = s.commands.owner(&owners.Before, clock)
	}
	return socket
}

// decodeEnd returns an end; none if it has no port.
func decodeEnd(address [16]byte, port uint16) netip.AddrPort {
	if port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(address).Unmap(), hostOrder(port))
}

// commandLength is COMMAND_LENGTH of bpf/socket.h.
const commandLength = len(bpf.SocketSocketOwner{}.Command)

// commands are the names of processes as texts, of which many sockets have the same.
type commands map[[commandLength]int8]string

// maxCommands bounds the names that are kept: a process calls itself as it likes.
const maxCommands = 1024

func (c commands) owner(owner *bpf.SocketSocketOwner, clock clock) flows.SocketOwner {
	return flows.SocketOwner{
		Cgroup: owner.Cgroup, Command: c.text(owner.Command),
		Since: clock.time(owner.Since), Until: clock.time(owner.Until),
	}
}

func (c commands) text(command [commandLength]int8) string {
	text, known := c[command]
	if known {
		return text
	}
	var bytes [commandLength]byte
	for i, b := range command {
		bytes[i] = byte(b)
	}
	text = plain.Text(unix.ByteSliceToString(bytes[:]), plain.KernelLimit)
	if len(c) >= maxCommands {
		clear(c)
	}
	c[command] = text
	return text
}

// socketOutcomes are the names of what comes of a socket.
var socketOutcomes = map[bpf.SocketSocketOutcome]string{
	bpf.SocketSocketOutcomeSOCKET_RECORDED:       "recorded",
	bpf.SocketSocketOutcomeSOCKET_NO_ROOM:        "no_room",
	bpf.SocketSocketOutcomeSOCKET_NO_STORAGE:     "no_storage",
	bpf.SocketSocketOutcomeSOCKET_NO_SAMPLE_ROOM: "no_sample_room",
}

// Counts returns how many sockets were seen since they were first looked at, by what came
// of them: recorded; no_room, as there are too many; no_storage, as the kernel could not
// keep the state of one. no_sample_room counts samples of the health of TCP connections
// that found no room.
func (s *Sockets) Counts() (map[string]uint64, error) {
	counts := make(map[string]uint64)
	for outcome, name := range socketOutcomes {
		var perCPU []uint64
		if err := s.objects.SocketOutcomes.Lookup(outcome, &perCPU); err != nil {
			return nil, fmt.Errorf("read outcomes of sockets: %w", err)
		}
		for _, n := range perCPU {
			counts[name] += n
		}
	}
	return counts, nil
}
