// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"math"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/internal/ktest"
)

// limits are what a share of a table has, and what all have in common.
type limits struct{ floor, common int32 }

var (
	small = limits{3, 6} // few sockets come up to it
	none  = limits{math.MaxInt32, math.MaxInt32}
)

// sized returns how tables of so many entries are sized, with limits of sockets and of ends.
func sized(entries uint32, sockets, ends limits) func(*ebpf.CollectionSpec) error {
	return func(spec *ebpf.CollectionSpec) error {
		err := SizeSockets(spec, entries, entries)
		for name, value := range map[string]int32{
			SocketVarSocketsFloor: sockets.floor, SocketVarSocketsCommon: sockets.common,
			SocketVarHealthFloor: ends.floor, SocketVarHealthCommon: ends.common,
		} {
			err = errors.Join(err, spec.Variables[name].Set(value))
		}
		return err
	}
}

// tenant is a pod with two containers.
type tenant struct{ one, two *ktest.Cgroup }

func (s *sockets) tenant(name string) tenant {
	s.Helper()
	pod := s.above.Child(s, name)
	return tenant{pod.Child(s, "one"), pod.Child(s, "two")}
}

// binds makes a socket of UDP at each port, which stays open.
func (s *sockets) binds(container *ktest.Cgroup, ns *ktest.Namespace, first, n int) {
	s.Helper()
	err := container.Do(ns, func() error {
		for port := first; port < first+n; port++ {
			l, err := net.ListenPacket("udp4", fmt.Sprint("127.0.0.1:", port))
			if err != nil {
				return err
			}
			s.Cleanup(func() { l.Close() })
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
}

// held are the entries of each tenant's containers.
func (s *sockets) held(tenants map[string]tenant) map[string]int {
	s.Helper()
	return s.count(tenants, s.objects.Sockets, func(next *ebpf.MapIterator) (uint64, bool) {
		var key SocketSocketKey
		var owners SocketSocketOwners
		more := next.Next(&key, &owners)
		return owners.Now.Cgroup, more
	})
}

// heldEnds are those of a set of health.
func (s *sockets) heldEnds(tenants map[string]tenant, set *ebpf.Map) map[string]int {
	s.Helper()
	return s.count(tenants, set, func(next *ebpf.MapIterator) (uint64, bool) {
		var key SocketHealthKey
		var health SocketTcpHealth
		more := next.Next(&key, &health)
		return key.Cgroup, more
	})
}

func (s *sockets) count(tenants map[string]tenant, m *ebpf.Map, next func(*ebpf.MapIterator) (uint64, bool)) map[string]int {
	s.Helper()
	whose := make(map[uint64]string)
	for name, tenant := range tenants {
		whose[tenant.one.ID], whose[tenant.two.ID] = name, name
	}
	held := make(map[string]int)
	entries := m.Iterate()
	for cgroup, more := next(entries); more; cgroup, more = next(entries) {
		held[whose[cgroup]]++
	}
	if err := entries.Err(); err != nil {
		s.Fatal(err)
	}
	return held
}

// shareOf is the number of the share that a container's sockets count towards, of which
// there is one.
func (s *sockets) shareOf(container *ktest.Cgroup) (share uint32) {
	s.Helper()
	var key SocketSocketKey
	var owners SocketSocketOwners
	for entries := s.objects.Sockets.Iterate(); entries.Next(&key, &owners); {
		if owners.Now.Cgroup == container.ID {
			return uint32(owners.Now.Share)
		}
	}
	s.Fatalf("no socket of cgroup %d", container.ID)
	return 0
}

func (s *sockets) share(number uint32) (share SocketShare) {
	s.Helper()
	if err := s.objects.SocketShares.Lookup(number, &share); err != nil {
		s.Fatal(err)
	}
	return share
}

func (s *sockets) wantMade(want map[uint32]uint32) {
	s.Helper()
	for number, made := range want {
		if got := s.share(number); got.Made != made || got.Gone != 0 {
			s.Errorf("share %d: got %+v, want %d made", number, got, made)
		}
	}
}

func (s *sockets) wantHeld(what string, got, want map[string]int) {
	s.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// What is common goes to who comes first, in whichever container and network; from then on
// each pod has its floor.
func TestSharesOfSockets(t *testing.T) {
	t.Parallel()
	s := newSocketsBy(t, sized(64, small, none))
	tenants := map[string]tenant{"x": s.tenant("x"), "y": s.tenant("y"), "z": s.tenant("z")}
	floor, common := int(small.floor), int(small.common)
	another := ktest.NewNamespace(t)
	s.binds(tenants["x"].one, s.pod, 1000, common)
	s.binds(tenants["x"].one, s.pod, 1100, 2)
	s.binds(tenants["x"].two, s.pod, 1200, 2)
	s.binds(tenants["x"].two, another, 1300, 2)
	s.wantHeld("after x", s.held(tenants), map[string]int{"x": common})
	s.binds(tenants["y"].one, s.pod, 2000, floor+2)
	s.binds(tenants["z"].one, s.pod, 3000, floor-1)
	s.binds(tenants["z"].two, s.pod, 3100, 4)
	s.wantHeld("after all", s.held(tenants), map[string]int{"x": common, "y": floor, "z": floor})
	if got := s.outcome(SocketSocketOutcomeSOCKET_NO_ROOM); got != 6+2+3 {
		t.Errorf("got %d sockets without room, want 11", got)
	}
	x, y, z := s.shareOf(tenants["x"].one), s.shareOf(tenants["y"].one), s.shareOf(tenants["z"].one)
	if x == y || y == z || x == z || s.shareOf(tenants["z"].two) != z {
		t.Errorf("got shares %d, %d and %d, want one of each pod", x, y, z)
	}
	s.wantMade(map[uint32]uint32{x: uint32(common), y: uint32(floor), z: uint32(floor), ShareAll: uint32(common + 2*floor)})
}

// A connection that is accepted is its listener's, one that is made its maker's.
func TestSharesOfConnections(t *testing.T) {
	t.Parallel()
	s := newSocketsBy(t, sized(64, none, none))
	server, client := s.tenant("server"), s.tenant("client")
	var l net.Listener
	s.in(server.one, func() (err error) {
		l, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	defer l.Close()
	const connections = 4
	s.in(client.one, func() error {
		for range connections {
			c, err := net.Dial("tcp4", l.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
		}
		return nil
	})
	s.wantMade(map[uint32]uint32{s.shareOf(server.one): connections + 1, s.shareOf(client.one): connections, ShareAll: 2*connections + 1})
}

// What the map had no room for counts towards no share.
func TestSharesOfAFullMap(t *testing.T) {
	t.Parallel()
	const room = 4
	s := newSocketsBy(t, sized(room, none, none))
	x := s.tenant("x")
	s.binds(x.one, s.pod, 1000, room+3)
	s.wantMade(map[uint32]uint32{s.shareOf(x.one): room, ShareAll: room})
	if got := s.outcome(SocketSocketOutcomeSOCKET_NO_ROOM); got != 3 {
		t.Errorf("got %d sockets without room, want 3", got)
	}
}

// An entry that another pod goes on with counts towards its share.
func TestSharesOfAPortThatChangesHands(t *testing.T) {
	t.Parallel()
	s := newSocketsBy(t, sized(64, small, none))
	x, y := s.tenant("x"), s.tenant("y")
	s.binds(x.one, s.pod, 1000, 1)
	s.binds(y.one, s.pod, 2000, 1)
	numberX, numberY := s.shareOf(x.one), s.shareOf(y.one)
	bind := func(tenant tenant) {
		s.in(tenant.one, func() error {
			socket := s.datagram(unix.AF_INET)
			return errors.Join(unix.Bind(socket, &unix.SockaddrInet4{Port: 3000}), unix.Close(socket))
		})
	}
	for range 2 {
		bind(x)
		s.wantMade(map[uint32]uint32{numberX: 2, numberY: 1, ShareAll: 3})
		bind(x)
		s.wantMade(map[uint32]uint32{numberX: 2, numberY: 1, ShareAll: 3})
		bind(y)
		s.wantMade(map[uint32]uint32{numberX: 1, numberY: 2, ShareAll: 3})
	}
}

// The agent's reckoning makes room; also one that has wrapped round, or that is ahead of
// what was made.
func TestSharesMakeRoom(t *testing.T) {
	t.Parallel()
	for _, made := range []uint32{0, 1<<32 - 2} {
		s := newSocketsBy(t, sized(64, small, none))
		x := s.tenant("x")
		s.binds(x.one, s.pod, 1000, 1)
		number := s.shareOf(x.one)
		reckon := func(held uint32) {
			for _, n := range []uint32{number, ShareAll} {
				if err := s.objects.SocketShares.Put(n, SocketShare{Made: made, Gone: made - held}); err != nil {
					t.Fatal(err)
				}
			}
		}
		outcome := func(held uint32, want uint64) {
			t.Helper()
			before := s.outcome(SocketSocketOutcomeSOCKET_NO_ROOM)
			reckon(held)
			s.binds(x.two, s.pod, int(1001+s.outcome(SocketSocketOutcomeSOCKET_RECORDED)+before), 1)
			if got := s.outcome(SocketSocketOutcomeSOCKET_NO_ROOM) - before; got != want {
				t.Errorf("%d made, %d held: got %d sockets without room, want %d", made, int32(held), got, want)
			}
		}
		outcome(uint32(small.common), 1)
		outcome(uint32(small.common)-1, 0)
		outcome(1<<32-1, 0) // one less than none
	}
}

// ends makes connections from a container, which stay open, to a listener that no program
// sees, and returns their ends.
func (c *connected) ends(container *ktest.Cgroup, l net.Listener, n int) (connections []net.Conn) {
	c.Helper()
	c.in(container, func() error {
		for range n {
			connection, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			c.Cleanup(func() { connection.Close() })
			connections = append(connections, connection)
		}
		return nil
	})
	return connections
}

// aside listens where no program sees it.
func (c *connected) aside() (l net.Listener) {
	c.Helper()
	err := c.there.Do(func() (err error) {
		l, err = net.Listen("tcp4", there4+":0")
		return err
	})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { l.Close() })
	return l
}

func (c *connected) begins(epoch uint64) {
	c.Helper()
	if err := c.objects.Epoch.Set(SocketEpochState{Epoch: epoch}); err != nil {
		c.Fatal(err)
	}
}

// healthShare is a share of health: its epoch, and how many ends were new to that.
type healthShare struct{ epoch, ends uint32 }

func (c *connected) healthShare(number uint32) healthShare {
	c.Helper()
	var value uint64
	if err := c.objects.HealthShares.Lookup(number, &value); err != nil {
		c.Fatal(err)
	}
	return healthShare{uint32(value >> 32), uint32(value)}
}

func (c *connected) wantHealthShares(want map[uint32]healthShare) {
	c.Helper()
	for number, w := range want {
		if got := c.healthShare(number); got != w {
			c.Errorf("share %d: got %+v, want %+v", number, got, w)
		}
	}
}

// The same of health, in either set. Each epoch begins from nothing, also one that is
// another meter's.
func TestSharesOfHealth(t *testing.T) {
	t.Parallel()
	c := connect(t, newSocketsBy(t, sized(64, none, small)))
	tenants := map[string]tenant{"x": c.tenant("x"), "y": c.tenant("y")}
	floor, common, l := small.floor, small.common, c.aside()
	sets := []*ebpf.Map{c.objects.Health0, c.objects.Health1}
	without := uint64(0)
	for _, epoch := range []uint64{0, 1, 2, 1<<32 + 7, 4} {
		c.begins(epoch)
		set := sets[epoch&1]
		if err := emptyMap(set); err != nil {
			t.Fatal(err)
		}
		c.ends(tenants["x"].one, l, 4)
		c.ends(tenants["x"].two, l, 4)
		c.wantHeld(fmt.Sprint("ends of x in epoch ", epoch), c.heldEnds(tenants, set), map[string]int{"x": int(common)})
		c.ends(tenants["y"].one, l, 4)
		c.wantHeld(fmt.Sprint("ends in epoch ", epoch), c.heldEnds(tenants, set), map[string]int{"x": int(common), "y": int(floor)})
		without += uint64(8 - common + 4 - floor)
		if got := c.outcome(SocketSocketOutcomeSOCKET_NO_SAMPLE_ROOM); got != without {
			t.Errorf("epoch %d: got %d samples without room, want %d", epoch, got, without)
		}
		x, y := c.shareOf(tenants["x"].one), c.shareOf(tenants["y"].one)
		c.wantHealthShares(map[uint32]healthShare{
			x: {uint32(epoch), uint32(common)}, y: {uint32(epoch), uint32(floor)}, ShareAll: {uint32(epoch), uint32(common + floor)},
		})
	}
}

// What the set had no room for counts towards no share.
func TestSharesOfAFullSet(t *testing.T) {
	t.Parallel()
	const room = 4
	c := connect(t, newSocketsBy(t, func(spec *ebpf.CollectionSpec) error {
		err := sized(64, none, none)(spec)
		spec.Maps[SocketMapHealth0].MaxEntries = room
		return err
	}))
	x := c.tenant("x")
	c.ends(x.one, c.aside(), room+3)
	c.wantHealthShares(map[uint32]healthShare{c.shareOf(x.one): {0, room}, ShareAll: {0, room}})
}

// A run that has read the epoch just before it changed leaves the new one's count alone.
func TestSharesOfALateRun(t *testing.T) {
	t.Parallel()
	c := connect(t, newSocketsBy(t, sized(64, none, small)))
	x, l := c.tenant("x"), c.aside()
	c.begins(8)
	c.ends(x.one, l, 1)
	number := c.shareOf(x.one)
	c.begins(7)
	c.ends(x.one, l, 2)
	c.wantHeld("late", c.heldEnds(map[string]tenant{"x": x}, c.objects.Health1), map[string]int{"x": 2})
	c.wantHealthShares(map[uint32]healthShare{number: {8, 1}, ShareAll: {8, 1}})
}

// The floors of many pods and what is common fit into the table.
func TestSizeSockets(t *testing.T) {
	type both struct{ sockets, ends limits }
	for entries, want := range map[uint32]both{
		131072: {limits{128, 114688}, limits{256, 98304}},
		65536:  {limits{64, 57344}, limits{128, 49152}},
		512:    {limits{0, 512}, limits{1, 384}},
		64:     {limits{0, 64}, limits{0, 64}},
		1:      {limits{0, 1}, limits{0, 1}},
	} {
		spec, err := LoadSocket()
		if err != nil {
			t.Fatal(err)
		}
		if err := SizeSockets(spec, entries, entries); err != nil {
			t.Fatal(err)
		}
		var got both
		for name, value := range map[string]*int32{
			SocketVarSocketsFloor: &got.sockets.floor, SocketVarSocketsCommon: &got.sockets.common,
			SocketVarHealthFloor: &got.ends.floor, SocketVarHealthCommon: &got.ends.common,
		} {
			if err := spec.Variables[name].Get(value); err != nil {
				t.Fatal(err)
			}
		}
		if got != want {
			t.Errorf("%d entries: got %+v, want %+v", entries, got, want)
		}
		for _, name := range []string{SocketMapSockets, SocketMapHealth0, SocketMapHealth1} {
			if got := spec.Maps[name].MaxEntries; got != entries {
				t.Errorf("%s: got %d entries, want %d", name, got, entries)
			}
		}
	}
	spec, err := LoadSocket()
	if err != nil {
		t.Fatal(err)
	}
	if err := SizeSockets(spec, 1<<31, 1); err == nil {
		t.Error("2^31 entries: got no error")
	}
	if got := spec.Maps[SocketMapSocketShares].MaxEntries; got != ShareAll+1 {
		t.Errorf("got %d shares, want that of all to be the last", got)
	}
}
