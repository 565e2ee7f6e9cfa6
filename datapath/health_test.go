// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

// healthWorld is a pod in a cgroup whose sockets meters look at, and servers out of it: at
// port 8080, and at 8081 in a cgroup that can lose packets.
type healthWorld struct {
	*socketWorld
	there *ktest.Namespace
	lossy *ktest.Cgroup
}

func newHealthWorld(t *testing.T) *healthWorld {
	t.Helper()
	w := &healthWorld{socketWorld: newSocketWorld(t), there: ktest.NewNamespace(t), lossy: ktest.NewCgroup(t)}
	w.pod.Veth(t, "eth0", w.there, "eth0")
	w.pod.Address(t, "eth0", "198.51.100.1/24")
	w.there.Address(t, "eth0", "198.51.100.2/24")
	for _, command := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO} {
		w.pod.Offload(t, "eth0", command, false) // many packets
	}
	serve := func(port int) error {
		l, err := net.Listen("tcp4", fmt.Sprint("198.51.100.2:", port))
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go swallow(l)
		return nil
	}
	err := errors.Join(
		w.there.Do(func() error { return serve(8080) }),
		w.lossy.Do(w.there, func() error { return serve(8081) }))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// swallow reads all that comes.
func swallow(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			io.Copy(io.Discard, c)
			c.Close()
		}()
	}
}

// dial connects from the pod's cgroup to a server.
func (w *healthWorld) dial(port int) (c net.Conn, err error) {
	err = w.cgroup.Do(w.pod, func() (err error) {
		c, err = net.Dial("tcp4", fmt.Sprint("198.51.100.2:", port))
		return err
	})
	return c, err
}

// healthTraffic is what a client did.
type healthTraffic struct{ opened, refused uint64 }

// once opens and closes a connection, and is refused one.
func (h *healthTraffic) once() error {
	c, err := net.Dial("tcp4", "198.51.100.2:8080")
	if err != nil {
		return err
	}
	h.opened++
	if err := c.Close(); err != nil {
		return err
	}
	if _, err := net.Dial("tcp4", "198.51.100.2:1"); !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("got %w, want it refused", err)
	}
	h.refused++
	return nil
}

// run does so until it is stopped.
func (w *healthWorld) run() (stop func() healthTraffic) {
	done := make(chan struct{})
	var traffic healthTraffic
	var client sync.WaitGroup
	client.Go(func() {
		err := w.cgroup.Do(w.pod, func() error {
			for !isDone(done) {
				if err := traffic.once(); err != nil {
					return err
				}
				time.Sleep(time.Millisecond) // or the ports would run out
			}
			return nil
		})
		if err != nil {
			w.Error(err)
		}
	})
	return func() healthTraffic {
		close(done)
		client.Wait()
		return traffic
	}
}

// retransmitted is what the kernel says of a connection.
func retransmitted(t *testing.T, c net.Conn) (segments, bytes uint64) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	var failed error
	err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return uint64(info.Total_retrans), info.Bytes_retrans
}

// all adds up what was published.
func (b *book) all(keep func(*flows.HealthRecord) bool) (sum flows.Health) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.health {
		if keep(&b.health[i]) {
			health := b.health[i].Health()
			sum.Add(&health)
		}
	}
	return sum
}

// Connections come and go, and one lives on and loses packets, while the meter flips all
// the time, is ended and is killed at any moment: what is published is what the sockets
// say, each thing once.
func TestHealthExactlyOnceAcrossKills(t *testing.T) {
	effort.Long(t, "kills a meter 24 times")
	t.Parallel()
	w := newHealthWorld(t)
	a, o := newArchive(), w.o
	o.DrainInterval = 20 * time.Millisecond
	closeSockets := w.follow(a)
	l := a.start(t, o)
	ktest.Await(t, "there is a checkpoint", a.hasSaved)
	long, err := w.dial(8081)
	if err != nil {
		t.Fatal(err)
	}
	defer long.Close()
	w.lossy.Lose(t, 20)
	stopWriting, stop := writeSlowly(long), w.run()
	random := rand.New(rand.NewPCG(1, 2))
	lives := effort.Lives(24)
	for n := range lives {
		l = a.next(t, l, o, n%4, random)
	}
	if err := stopWriting(); err != nil {
		t.Fatal(err)
	}
	want := stop()
	ktest.Await(t, "all is acknowledged", func() bool { return unacknowledged(t, long) == 0 })
	segments, bytes := retransmitted(t, long)
	if lives := a.all(ofLong); lives.RetransmittedSegments == 0 || lives.Opened != 1 {
		t.Errorf("while it lives: got %+v, want it", lives)
	}
	l.stop(t)
	if err := closeSockets(); err != nil {
		t.Error(err)
	}
	got := a.all(ofLong)
	if got.RetransmittedSegments != segments || got.RetransmittedBytes != bytes || segments < 20 {
		t.Errorf("long connection: got %d segments and %d bytes, want %d and %d", got.RetransmittedSegments, got.RetransmittedBytes, segments, bytes)
	}
	want.check(t, a.all(func(r *flows.HealthRecord) bool { return !ofLong(r) && r.Cgroup == w.cgroup.ID }))
	t.Logf("%d lives: %d connections opened, %d refused, %d segments retransmitted", lives, want.opened, want.refused, segments)
}

// follow makes each meter of an archive look at the cgroup's sockets. The function closes
// those of the last one.
func (w *healthWorld) follow(a *archive) (closeLast func() error) {
	var s *Sockets
	closeLast = func() error {
		if s == nil {
			return nil
		}
		return s.Close()
	}
	a.prepare = func(m *Meter) (err error) {
		if err := closeLast(); err != nil {
			return err
		}
		s, err = m.OpenSockets(SocketOptions{Cgroups: w.cgroup.Path})
		return err
	}
	return closeLast
}

// ofLong tells the connection that lives on by its peer, as ports here are used again.
func ofLong(r *flows.HealthRecord) bool { return r.Peer.Port() == 8081 }

// writeSlowly writes until it is stopped, so that it takes as long as the kills.
func writeSlowly(c net.Conn) (stop func() error) {
	done, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		var err error
		for err == nil && !isDone(done) {
			_, err = c.Write(make([]byte, 20_000))
			time.Sleep(time.Millisecond)
		}
		failed <- err
	}()
	return func() error {
		close(done)
		return <-failed
	}
}

// check compares what was published with what was done.
func (h healthTraffic) check(t *testing.T, got flows.Health) {
	t.Helper()
	if got.Opened != h.opened || got.Failed != h.refused || h.opened < 100 {
		t.Errorf("got %d opened and %d failed, want %d and %d", got.Opened, got.Failed, h.opened, h.refused)
	}
	var samples uint64
	for _, n := range got.RTT {
		samples += n
	}
	if samples < 2*h.opened {
		t.Errorf("got %d RTTs of %d connections, want two of each at least", samples, h.opened)
	}
}

func isDone(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func unacknowledged(t *testing.T, c net.Conn) int {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var failed error
	err = raw.Control(func(fd uintptr) { n, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return n
}

// Maps of health of another size, or none, begin anew alone: whose sockets are stays known,
// and of connections that go on what happens from then on.
func TestHealthBeginsAnewAlone(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		next   SocketOptions
		damage func(*testing.T, string)
	}{
		{"another size", SocketOptions{MaxHealth: 64}, func(*testing.T, string) {}},
		{"of a build that knew none", SocketOptions{}, func(t *testing.T, path string) {
			for _, pin := range pinsIn(t, path) {
				if strings.HasPrefix(pin, socketPrefix+"health") || strings.HasPrefix(pin, socketPrefix+"tcp") {
					if err := os.Remove(filepath.Join(path, pin)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newHealthWorld(t)
			defer w.listen(8080).Close()
			_, end := w.open(SocketOptions{})
			defer w.listen(8081).Close()
			end()
			test.damage(t, w.o.PinPath)
			s, end := w.open(test.next)
			if open, _ := w.ports(s); !slices.Equal(open, []uint16{8081}) {
				t.Errorf("got %v open, want 8081", open)
			}
			c, err := w.dial(8080)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			size := uint32(DefaultMaxHealth)
			if test.next.MaxHealth > 0 {
				size = test.next.MaxHealth
			}
			var pins []string
			for _, pin := range pinsIn(t, w.o.PinPath) {
				if strings.HasPrefix(pin, socketPrefix+"health") {
					pins = append(pins, pin)
				}
			}
			slices.Sort(pins)
			if want := []string{fmt.Sprintf("sockets_health_0_v%d_%d", bpf.HealthLayout, size), fmt.Sprintf("sockets_health_1_v%d_%d", bpf.HealthLayout, size)}; !slices.Equal(pins, want) {
				t.Errorf("got pins %v, want %v", pins, want)
			}
			end()
			if got := w.o.Sink.(*book).all(func(*flows.HealthRecord) bool { return true }); got.Opened != 1 {
				t.Errorf("got %d opened, want 1", got.Opened)
			}
		})
	}
}

// What is published and not cleared yet, as an agent was killed between, is cleared.
func TestHealthThatWasPublishedIsCleared(t *testing.T) {
	t.Parallel()
	w := newHealthWorld(t)
	a := newArchive()
	closeSockets := w.follow(a)
	o := w.o
	o.DrainInterval = time.Hour
	l := a.start(t, o)
	c, err := w.dial(8080)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	drain := func() error { return l.Drain(t.Context()) }
	if err := drain(); err != nil { // freezes what it is in
		t.Fatal(err)
	}
	a.lock.Lock()
	a.after = true
	a.lock.Unlock()
	if err := drain(); !errors.Is(err, errKilled) {
		t.Fatalf("got %v, want %v", err, errKilled)
	}
	l.kill(t)
	l = a.start(t, o)
	l.stop(t)
	if err := closeSockets(); err != nil {
		t.Error(err)
	}
	if got := a.all(func(*flows.HealthRecord) bool { return true }); got.Opened != 1 {
		t.Errorf("got %d opened, want it once", got.Opened)
	}
}

// Programs of sockets can be preempted, so that with one CPU membarrier(2) is not enough.
func TestGraceOfSocketsCoversPreempted(t *testing.T) {
	t.Parallel()
	w := newSocketWorld(t)
	m, err := New(t.Context(), w.o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, err := m.OpenSockets(SocketOptions{Cgroups: w.cgroup.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if m.drainer.grace.outer == nil {
		t.Error("got membarrier(2) alone, want a map's grace period")
	}
}
