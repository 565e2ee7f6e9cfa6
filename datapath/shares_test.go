// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// crowdPods is how many pods a kubelet runs by default.
const crowdPods = 110

// crowd makes the containers of so many pods, as the kubelet has cgroups: the programs are
// attached further up.
func (w *socketWorld) crowd(pods int) (containers []*ktest.Cgroup) {
	w.Helper()
	all := w.cgroup.Child(w, "kubepods")
	for pod := range pods {
		containers = append(containers, all.Child(w, fmt.Sprint("pod", pod)).Child(w, "container"))
	}
	return containers
}

// bound makes a socket of UDP with an address and a port that no other has.
func bound(pod, i int) (socket int, err error) {
	socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	address := &unix.SockaddrInet4{Addr: [4]byte{127, byte(1 + pod), 0, byte(1 + i/50_000)}, Port: 10_000 + i%50_000}
	if err := unix.Bind(socket, address); err != nil {
		return 0, errors.Join(err, unix.Close(socket))
	}
	return socket, nil
}

// bind makes sockets in a pod's container, which are closed when the function that it
// returns is called.
func (w *socketWorld) bind(container *ktest.Cgroup, pod, first, n int) (closeAll func()) {
	w.Helper()
	var sockets []int
	closeAll = func() {
		for _, socket := range sockets {
			unix.Close(socket)
		}
	}
	err := container.Do(w.pod, func() error {
		for i := first; i < first+n; i++ {
			socket, err := bound(pod, i)
			if err != nil {
				return err
			}
			sockets = append(sockets, socket)
		}
		return nil
	})
	if err != nil {
		closeAll()
		w.Fatal(err)
	}
	return closeAll
}

// inAll returns what runs a function in the container of each pod, with the pod's number and
// a round's, in all at once. Each stays in its container, as to enter one takes long.
func (w *socketWorld) inAll(pods []*ktest.Cgroup, f func(pod, round int) error) (run func(round int)) {
	w.Helper()
	var all errgroup.Group
	done := make(chan error, len(pods))
	var begin []chan int
	for i, pod := range pods {
		begin = append(begin, make(chan int, 1))
		rounds := begin[i]
		all.Go(func() error {
			err := pod.Do(w.pod, func() error {
				for round := range rounds {
					done <- f(i, round)
				}
				return nil
			})
			if err != nil {
				done <- err
			}
			return err
		})
	}
	w.Cleanup(func() {
		for _, c := range begin {
			close(c)
		}
		if err := all.Wait(); err != nil {
			w.Error(err)
		}
	})
	return func(round int) {
		w.Helper()
		for _, c := range begin {
			c <- round
		}
		for range begin {
			if err := <-done; err != nil {
				w.Fatal(err)
			}
		}
	}
}

// openAndClose opens and closes so many sockets, one after the other.
func openAndClose(pod, first, n int) error {
	for i := first; i < first+n; i++ {
		socket, err := bound(pod, i)
		if err != nil {
			return err
		}
		unix.Close(socket)
	}
	return nil
}

// count is how many there were of an outcome.
func (w *socketWorld) count(s *Sockets, outcome string) uint64 {
	w.Helper()
	counts, err := s.Counts()
	if err != nil {
		w.Fatal(err)
	}
	return counts[outcome]
}

// checkShares compares what the programs take for held with what is in the map.
func (s *Sockets) checkShares(t *testing.T) {
	t.Helper()
	there := make(map[uint32]uint32)
	var key bpf.SocketSocketKey
	var owners bpf.SocketSocketOwners
	entries := s.objects.Sockets.Iterate()
	for entries.Next(&key, &owners) {
		there[uint32(owners.Now.Share)]++
		there[bpf.ShareAll]++
	}
	var number uint32
	var share bpf.SocketShare
	shares := s.objects.SocketShares.Iterate()
	for shares.Next(&number, &share) {
		if got := share.Made - share.Gone; got != there[number] {
			t.Errorf("share %d: got %d held, want the %d that are there", number, int32(got), there[number])
		}
	}
	if err := errors.Join(entries.Err(), shares.Err()); err != nil {
		t.Fatal(err)
	}
}

// known is how many sockets are known of each cgroup. What was closed a while ago may be
// forgotten by that.
func known(t *testing.T, s *Sockets) map[uint64]int {
	t.Helper()
	all, err := s.all()
	if err != nil {
		t.Fatal(err)
	}
	of := make(map[uint64]int)
	for _, socket := range all {
		of[socket.Now.Cgroup]++
	}
	return of
}

// All pods of a node but one open and close as many sockets as they can, at once and from
// one drain to the next: the one that is left has its floor.
func TestNoPodTakesTheSocketsOfAnother(t *testing.T) {
	effort.Long(t, "floods from 109 pods")
	room := uint32(8192)
	if effort.Stressed() {
		room = DefaultMaxSockets
	}
	w := newSocketWorld(t)
	s, end := w.open(SocketOptions{MaxSockets: room})
	defer end()
	pods := w.crowd(crowdPods)
	victim, hostile := pods[0], pods[1:]
	floor, each := int(bpf.SocketFloor(room)), 2*int(room)/len(hostile)
	// A quarter of its floor stays open, and one comes in each round: in all more than the
	// floor, but what was closed is forgotten after the next round.
	quarter := floor / 4
	floodAll := w.inAll(hostile, func(pod, round int) error { return openAndClose(1+pod, round*each, each) })
	defer w.bind(victim, 0, 0, quarter)()
	for round := range 8 {
		later := time.Duration(round) * time.Hour
		s.now = func() time.Time { return time.Now().Add(later) }
		before := w.count(s, "no_room")
		floodAll(round)
		full := w.count(s, "no_room")
		if full == before {
			t.Fatalf("round %d: got room for all, want the table full", round)
		}
		w.bind(victim, 0, (1+round)*quarter, quarter)()
		if got := w.count(s, "no_room") - full; got != 0 {
			t.Errorf("round %d: %d sockets of %d were not recorded", round, got, quarter)
		}
		if got := known(t, s)[victim.ID]; got < 2*quarter || got > floor {
			t.Errorf("round %d: got %d sockets, want those that are open and of this round", round, got)
		}
		s.checkShares(t)
	}
	t.Logf("%d sockets recorded, %d without room", w.count(s, "recorded"), w.count(s, "no_room"))
}

// Up to its floor it goes, and no further while the table is full.
func TestFloorOfSockets(t *testing.T) {
	t.Parallel()
	const room = 4096
	w := newSocketWorld(t)
	s, end := w.open(SocketOptions{MaxSockets: room})
	defer end()
	pods := w.crowd(3)
	floor := int(bpf.SocketFloor(room))
	w.inAll(pods[1:2], func(int, int) error { return openAndClose(1, 0, room) })(0)
	w.bind(pods[0], 0, 0, 2*floor)()
	w.bind(pods[2], 9, 0, floor/2)()
	want := map[uint64]int{pods[0].ID: floor, pods[1].ID: room - bpf.FlooredShares*floor, pods[2].ID: floor / 2}
	if diff := cmp.Diff(want, known(t, s)); diff != "" {
		t.Errorf("sockets by cgroup (-want +got):\n%s", diff)
	}
	s.checkShares(t)
}

// Without the maps of shares that of sockets is gone on with: no entry is lost, and those
// that are there count from the first read on.
func TestSharesThatAreGone(t *testing.T) {
	t.Parallel()
	const room, before = 1024, 700
	w := newSocketWorld(t)
	_, stop := w.open(SocketOptions{MaxSockets: room})
	pods := w.crowd(2)
	defer w.bind(pods[0], 0, 0, before)() // what is closed might be forgotten
	stop()
	for _, pin := range pinsIn(t, w.o.PinPath) {
		if strings.HasPrefix(pin, socketPrefix+"shares") {
			if err := os.Remove(filepath.Join(w.o.PinPath, pin)); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, end := w.open(SocketOptions{MaxSockets: room})
	defer end()
	if got := known(t, s)[pods[0].ID]; got != before {
		t.Errorf("got %d sockets, want the %d of before", got, before)
	}
	s.checkShares(t)
	// There is room for what is common, and from there on for floors.
	floor := int(bpf.SocketFloor(room))
	common := room - bpf.FlooredShares*floor
	w.bind(pods[0], 0, before, common)()
	w.bind(pods[1], 1, 0, 2*floor)()
	if diff := cmp.Diff(map[uint64]int{pods[0].ID: common, pods[1].ID: floor}, known(t, s)); diff != "" {
		t.Errorf("sockets by cgroup (-want +got):\n%s", diff)
	}
	s.checkShares(t)
}

// What programs count while no agent runs, the next one goes on from.
func TestSharesGoOn(t *testing.T) {
	t.Parallel()
	const room = 1024
	w := newSocketWorld(t)
	s, end := w.open(SocketOptions{MaxSockets: room})
	pods := w.crowd(2)
	w.bind(pods[0], 0, 0, room)()
	known(t, s)
	end()
	w.bind(pods[1], 1, 0, room)()
	s, end = w.open(SocketOptions{MaxSockets: room})
	defer end()
	s.checkShares(t)
	if got, want := known(t, s)[pods[1].ID], int(bpf.SocketFloor(room)); got != want {
		t.Errorf("got %d sockets, want the floor of %d", got, want)
	}
}

// connections are those of a round: a port that is taken again would be the same end.
type connections struct {
	lock sync.Mutex
	open []net.Conn
}

// dial makes connections to an address out of the pod.
func (c *connections) dial(n int) error {
	for range n {
		connection, err := net.Dial("tcp4", "198.51.100.2:8080")
		if err != nil {
			return err
		}
		c.lock.Lock()
		c.open = append(c.open, connection)
		c.lock.Unlock()
	}
	return nil
}

// close resets them, so that nothing of them comes later.
func (c *connections) close() {
	c.lock.Lock()
	defer c.lock.Unlock()
	for _, connection := range c.open {
		_ = connection.(*net.TCPConn).SetLinger(0)
		connection.Close()
	}
	c.open = nil
}

// The same of the health of connections, in each epoch.
func TestNoPodTakesTheHealthOfAnother(t *testing.T) {
	effort.Long(t, "floods from 109 pods")
	const room, rounds = 1024, 3 // few descriptors
	w := newHealthWorld(t)
	m, err := New(t.Context(), w.o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.OpenSockets(SocketOptions{Cgroups: w.cgroup.Path, MaxHealth: room, namespaces: func() []string { return nil }})
	if err != nil {
		t.Fatal(errors.Join(err, m.Close()))
	}
	pods := w.crowd(crowdPods)
	victim, hostile := pods[0], pods[1:]
	floor, each := int(bpf.EndFloor(room)), 5*room/4/len(hostile)
	var c connections
	defer c.close()
	floodAll := w.inAll(hostile, func(int, int) error { return c.dial(each) })
	for round := range rounds {
		before := w.count(s, "no_sample_room")
		floodAll(round)
		full := w.count(s, "no_sample_room")
		if full == before {
			t.Fatalf("round %d: got room for all, want the set full", round)
		}
		if err := victim.Do(w.pod, func() error { return c.dial(floor) }); err != nil {
			t.Fatal(err)
		}
		if got := w.count(s, "no_sample_room") - full; got != 0 {
			t.Errorf("round %d: %d samples had no room", round, got)
		}
		c.close()
		if err := m.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(m.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	published := w.o.Sink.(*book)
	if got := published.all(func(r *flows.HealthRecord) bool { return r.Cgroup == victim.ID }); got.Opened != uint64(rounds*floor) {
		t.Errorf("got %d connections of the victim, want %d", got.Opened, rounds*floor)
	}
	others := published.all(func(r *flows.HealthRecord) bool { return r.Cgroup != victim.ID })
	if want := uint64(rounds * (room - bpf.FlooredShares*floor)); others.Opened < want {
		t.Errorf("got %d connections of the others, want the %d that are common at least", others.Opened, want)
	}
}
