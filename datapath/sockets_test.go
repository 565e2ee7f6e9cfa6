// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
)

// socketWorld is a cgroup whose sockets a meter looks at.
type socketWorld struct {
	testing.TB
	pod    *ktest.Namespace
	cgroup *ktest.Cgroup
	o      Options
}

func newSocketWorld(t *testing.T) *socketWorld {
	t.Helper()
	w := &socketWorld{TB: t, pod: ktest.NewNamespace(t), cgroup: ktest.NewCgroup(t)}
	w.o = testOptions(t, ktest.NewNamespace(t), newBook())
	cleanPins(t, w.o)
	return w
}

// open makes a meter that looks at sockets. The function ends both.
func (w *socketWorld) open(o SocketOptions) (*Sockets, func()) {
	w.Helper()
	m, err := New(w.Context(), w.o)
	if err != nil {
		w.Fatalf("new meter: %v", err)
	}
	o.Cgroups = w.cgroup.Path
	if o.namespaces == nil {
		o.namespaces = func() []string { return nil }
	}
	s, err := m.OpenSockets(o)
	if err != nil {
		w.Fatalf("open sockets: %v", errors.Join(err, m.Close()))
	}
	return s, func() {
		w.Helper()
		if err := errors.Join(m.Close(), s.Close()); err != nil {
			w.Errorf("close: %v", err)
		}
	}
}

// listen makes a listening socket in the cgroup.
func (w *socketWorld) listen(port int) net.Listener {
	w.Helper()
	var l net.Listener
	err := w.cgroup.Do(w.pod, func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprint("0.0.0.0:", port))
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return l
}

// all returns all sockets that are read.
func (s *Sockets) all() (all []flows.Socket, err error) {
	err = s.Sockets(func() { all = nil }, func(socket *flows.Socket) { all = append(all, *socket) })
	return all, err
}

// ports are the local ports of the sockets that are read, in order, those of open ones.
func (w *socketWorld) ports(s *Sockets) (open, closed []uint16) {
	w.Helper()
	all, err := s.all()
	if err != nil {
		w.Fatal(err)
	}
	for _, socket := range all {
		if socket.Now.Until.IsZero() {
			open = append(open, socket.Local.Port())
		} else {
			closed = append(closed, socket.Local.Port())
		}
	}
	slices.Sort(open)
	slices.Sort(closed)
	return open, closed
}

func TestSocketsAreRead(t *testing.T) {
	t.Parallel()
	w := newSocketWorld(t)
	s, end := w.open(SocketOptions{})
	defer end()
	before := time.Now()
	l := w.listen(8080)
	all, err := s.all()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Fatalf("got %+v, want one socket", all)
	}
	got := all[0]
	if age := got.Now.Since.Sub(before).Abs(); age > time.Second {
		t.Errorf("got it since %v, want about %v", got.Now.Since, before)
	}
	command, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	want := flows.Socket{Protocol: flows.ProtocolTCP, Local: netip.MustParseAddrPort("0.0.0.0:8080"), Owners: 1,
		Now: flows.SocketOwner{Cgroup: w.cgroup.ID, Command: strings.TrimSpace(string(command)), Since: got.Now.Since}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("socket (-want +got):\n%s", diff)
	}
	l.Close()
	if open, closed := w.ports(s); len(open) != 0 || len(closed) != 1 {
		t.Errorf("closed: got %v open and %v closed, want the one closed", open, closed)
	}
	counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]uint64{"recorded": 1, "no_room": 0, "no_storage": 0, "no_sample_room": 0}, counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	// It is forgotten after a while, and there is one that is not.
	defer w.listen(8081).Close()
	s.now = func() time.Time { return time.Now().Add(socketMemory + time.Second) }
	w.ports(s)
	if open, closed := w.ports(s); !slices.Equal(open, []uint16{8081}) || len(closed) != 0 {
		t.Errorf("later: got %v open and %v closed, want 8081 alone", open, closed)
	}
}

// Sockets are seen while no agent runs, and the next one goes on.
func TestSocketsGoOn(t *testing.T) {
	t.Parallel()
	w := newSocketWorld(t)
	_, end := w.open(SocketOptions{})
	defer w.listen(8080).Close()
	end()
	gone := w.listen(8081)
	defer w.listen(8082).Close()
	gone.Close()
	s, end := w.open(SocketOptions{})
	defer end()
	defer w.listen(8083).Close()
	open, closed := w.ports(s)
	if !slices.Equal(open, []uint16{8080, 8082, 8083}) || !slices.Equal(closed, []uint16{8081}) {
		t.Errorf("got %v open and %v closed, want 8080, 8082 and 8083, and 8081", open, closed)
	}
}

// Another size, and pins that are not all there, begin anew, without two programs that
// look at one socket.
func TestSocketsBeginAnew(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		next   SocketOptions
		damage func(*testing.T, string)
	}{
		{"another size", SocketOptions{MaxSockets: 64}, func(*testing.T, string) {}},
		{"a map is missing", SocketOptions{}, func(t *testing.T, path string) {
			if err := os.Remove(filepath.Join(path, socketPrefix+"outcomes")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a map is another's", SocketOptions{}, func(t *testing.T, path string) {
			pin := filepath.Join(path, socketPrefix+"outcomes")
			if err := os.Remove(pin); err != nil {
				t.Fatal(err)
			}
			m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(m.Pin(pin), m.Close()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newSocketWorld(t)
			_, end := w.open(SocketOptions{})
			end()
			test.damage(t, w.o.PinPath)
			s, end := w.open(test.next)
			defer end()
			defer w.listen(8080).Close()
			if open, _ := w.ports(s); !slices.Equal(open, []uint16{8080}) {
				t.Errorf("got %v, want 8080", open)
			}
			for _, hook := range s.objects.Hooks() {
				if got := w.attached(hook.Attach); got != 1 {
					t.Errorf("%v: got %d programs, want 1", hook.Attach, got)
				}
			}
		})
	}
}

// attached counts the programs of a cgroup.
func (w *socketWorld) attached(attach ebpf.AttachType) int {
	w.Helper()
	directory, err := os.Open(w.cgroup.Path)
	if err != nil {
		w.Fatal(err)
	}
	defer directory.Close()
	programs, err := link.QueryPrograms(link.QueryOptions{Target: int(directory.Fd()), Attach: attach})
	if err != nil {
		w.Fatal(err)
	}
	return len(programs.Programs)
}

// What others have attached stays, also when ours goes.
func TestSocketsBesideOthers(t *testing.T) {
	t.Parallel()
	w := newSocketWorld(t)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SockOps, License: "GPL", AttachType: ebpf.AttachCGroupSockOps,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	theirs, err := link.AttachCgroup(link.CgroupOptions{Path: w.cgroup.Path, Attach: ebpf.AttachCGroupSockOps, Program: program})
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	s, end := w.open(SocketOptions{})
	if got := w.attached(ebpf.AttachCGroupSockOps); got != 2 {
		t.Errorf("got %d programs, want theirs and ours", got)
	}
	defer w.listen(8080).Close()
	if open, _ := w.ports(s); len(open) != 1 {
		t.Errorf("got %v, want 8080", open)
	}
	end()
	if _, err := (remains{path: w.o.PinPath, within: w.o.within}).remove(); err != nil {
		t.Fatal(err)
	}
	ktest.Await(t, "ours to go", func() bool { return w.attached(ebpf.AttachCGroupSockOps) == 1 })
	if pins := pinsIn(t, w.o.PinPath); len(pins) != 0 {
		t.Errorf("got pins %v, want none", pins)
	}
}

// Where there is no room, that is counted, and what is known stays.
func TestSocketsBeyondTheMap(t *testing.T) {
	t.Parallel()
	w := newSocketWorld(t)
	s, end := w.open(SocketOptions{MaxSockets: 4})
	defer end()
	for port := range 10 {
		defer w.listen(8080 + port).Close()
	}
	open, _ := w.ports(s)
	if !slices.Equal(open, []uint16{8080, 8081, 8082, 8083}) {
		t.Errorf("got %v, want the first four", open)
	}
	counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if counts["recorded"] != 4 || counts["no_room"] != 6 {
		t.Errorf("got %v, want 4 recorded and 6 without room", counts)
	}
}

// However many short connections come, and however few can be known at once, each is
// counted, what is known stays bounded, and connections go on.
func TestShortConnections(t *testing.T) {
	w := newSocketWorld(t)
	const room = 4096
	s, end := w.open(SocketOptions{MaxSockets: room})
	defer end()
	lasts := time.Second
	if effort.Stressed() {
		lasts = 30 * time.Second
	}
	connections := w.connect(t, lasts, func() { w.ports(s) })
	var open, closed []uint16
	ktest.Await(t, "the end of all", func() bool {
		open, closed = w.ports(s)
		return len(open) == 0
	})
	if got := len(open) + len(closed); got > room {
		t.Errorf("got %d sockets, want %d at most", got, room)
	}
	counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	// Both ends of each, and the listener.
	if got, want := counts["recorded"]+counts["no_room"], uint64(2*connections+1); got != want {
		t.Errorf("got %v, %d in all, want %d", counts, got, want)
	}
	t.Logf("%d connections, %.0f a second: %v", connections, float64(connections)/lasts.Seconds(), counts)
}

// readingSink reads the sockets of each epoch, as a publisher does.
type readingSink struct {
	*book
	sockets atomic.Pointer[Sockets]
}

func (r *readingSink) Publish(epoch *flows.Epoch) error {
	if s := r.sockets.Load(); s != nil {
		if _, err := s.all(); err != nil {
			return err
		}
	}
	return r.book.Publish(epoch)
}

// Short connections make room for others as soon as their flows are read, and drains come
// sooner for that: many more than there is room for go by without one that is not known.
func TestShortConnectionsMakeRoom(t *testing.T) {
	effort.Long(t, "floods for seconds")
	w := newSocketWorld(t)
	sink := &readingSink{book: newBook()}
	w.o.Sink = sink
	// So many a second that the first drain does not come too late.
	rate, lasts := 15_000, 8*time.Second
	w.o.DrainInterval = 2 * time.Second
	if effort.Stressed() {
		rate, lasts, w.o.DrainInterval = 10_000, 30*time.Second, defaultDrainInterval
	}
	m, err := New(t.Context(), w.o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.OpenSockets(SocketOptions{Cgroups: w.cgroup.Path, namespaces: func() []string { return nil }})
	if err != nil {
		t.Fatal(errors.Join(err, m.Close()))
	}
	sink.sockets.Store(s)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- m.Run(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-ran, m.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	}()
	began, connections := time.Now(), 0
	w.connect(t, lasts, func() {
		connections += 1000
		time.Sleep(time.Until(began.Add(time.Duration(connections) * time.Second / time.Duration(rate))))
	})
	counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if counts["no_room"] != 0 {
		t.Errorf("got %v after %d connections, want room for all", counts, connections)
	}
	t.Logf("%d connections, %d drains", connections, m.LastDrain().Count)
}

// connect makes short connections within the cgroup for so long, and returns how many.
// nowAndThen is called after each thousand of them.
func (w *socketWorld) connect(t *testing.T, lasts time.Duration, nowAndThen func()) (connections int) {
	t.Helper()
	listener := w.listen(8080)
	defer listener.Close()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = connection.Read(make([]byte, 1))
			connection.Close()
		}
	}()
	began := time.Now()
	err := w.cgroup.Do(w.pod, func() error {
		for time.Since(began) < lasts {
			// To several addresses, as one has too few ports to tell so many apart.
			connection, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.%d:8080", 1+connections%16))
			if err != nil {
				return err
			}
			_ = connection.(*net.TCPConn).SetLinger(0) // without TIME_WAIT: ports are few
			connection.Close()
			if connections++; connections%1000 == 0 {
				nowAndThen()
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return connections
}

func TestCgroupRoot(t *testing.T) {
	t.Parallel()
	ktest.Privileged(t)
	if _, err := CgroupRoot(t.TempDir()); !errors.Is(err, ErrCgroups) {
		t.Errorf("a directory: got %v, want %v", err, ErrCgroups)
	}
	if _, err := CgroupRoot(ktest.NewCgroup(t).Path); !errors.Is(err, ErrCgroups) {
		t.Errorf("a cgroup: got %v, want %v", err, ErrCgroups)
	}
	if root, err := CgroupRoot("/sys/fs/cgroup"); err != nil || exists(filepath.Join(root, "cgroup.events")) {
		t.Errorf("the root: got %q, %v, want it", root, err)
	}
}
