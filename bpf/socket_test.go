// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/internal/ktest"
)

// sockets is the second object at work on two containers of one pod.
type sockets struct {
	testing.TB
	objects SocketObjects
	pod     *ktest.Namespace
	above   *ktest.Cgroup // that the programs are attached to
	a, b    *ktest.Cgroup
}

func newSockets(t testing.TB) *sockets { return newSocketsOf(t, 1<<16) }

// newSocketsOf has room for the health of so many ends of connections.
func newSocketsOf(t testing.TB, ends uint32) *sockets {
	t.Helper()
	return newSocketsBy(t, func(spec *ebpf.CollectionSpec) error { return SizeSockets(spec, 1<<16, ends) })
}

// newSocketsBy has maps of the size that they are given.
func newSocketsBy(t testing.TB, size func(*ebpf.CollectionSpec) error) *sockets {
	t.Helper()
	s := &sockets{TB: t, pod: ktest.NewNamespace(t), above: ktest.NewCgroup(t)}
	s.a, s.b = s.above.Child(t, "a"), s.above.Child(t, "b")
	spec, err := LoadSocket()
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	if err := size(spec); err != nil {
		t.Fatalf("size: %v", err)
	}
	if err := spec.LoadAndAssign(&s.objects, nil); err != nil {
		var refused *ebpf.VerifierError
		if errors.As(err, &refused) {
			t.Fatalf("load: %+v", refused)
		}
		t.Fatalf("load: %v", err)
	}
	t.Cleanup(func() { s.objects.Close() })
	for name, hook := range s.objects.Hooks() {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: s.above.Path, Attach: hook.Attach, Program: hook.Program})
		if err != nil {
			t.Fatalf("attach %s: %v", name, err)
		}
		t.Cleanup(func() { l.Close() })
	}
	return s
}

// in runs f in a container.
func (s *sockets) in(container *ktest.Cgroup, f func() error) {
	s.Helper()
	if err := container.Do(s.pod, f); err != nil {
		s.Fatal(err)
	}
}

// listing is an entry: whose it is and how many sockets are open, and of which process.
type listing struct {
	whose, command string
	process        uint32
}

// listed are the entries by protocol, local and peer.
func (s *sockets) listed() map[string]listing {
	s.Helper()
	name := func(cgroup uint64) string {
		switch cgroup {
		case s.a.ID:
			return "a"
		case s.b.ID:
			return "b"
		}
		return fmt.Sprint("cgroup ", cgroup) // 0 for those who shared it
	}
	found := make(map[string]listing)
	var (
		key    SocketSocketKey
		owners SocketSocketOwners
	)
	entries := s.objects.Sockets.Iterate()
	for entries.Next(&key, &owners) {
		protocol := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[key.Protocol]
		where := fmt.Sprintf("%s %v %v", protocol, address(key.Local, key.LocalPort), address(key.Peer, key.PeerPort))
		whose := name(owners.Now.Cgroup)
		if owners.Shared != 0 {
			whose += " and others"
		}
		if owners.Owners > 1 {
			whose += " after " + name(owners.Before.Cgroup)
		}
		found[where] = listing{fmt.Sprintf("%s, %d open", whose, owners.Open), bytesOf(owners.Now.Command), owners.Now.Process}
	}
	if err := entries.Err(); err != nil {
		s.Fatal(err)
	}
	return found
}

func bytesOf(command [16]int8) string {
	var b []byte
	for _, c := range command {
		if c != 0 {
			b = append(b, byte(c))
		}
	}
	return string(b)
}

func address(ip [16]byte, port uint16) string {
	swapped := port>>8 | port<<8
	return netip.AddrPortFrom(netip.AddrFrom16(ip).Unmap(), swapped).String()
}

// want compares the entries, all of which are of this process.
func (s *sockets) want(want map[string]string) {
	s.Helper()
	command, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		s.Fatal(err)
	}
	got := make(map[string]string)
	for where, l := range s.listed() {
		got[where] = l.whose
		// The process has another id in the first namespace of processes.
		if l.process == 0 || l.command != strings.TrimSpace(string(command)) {
			s.Errorf("%s: got process %d %q, want %q", where, l.process, l.command, command)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("sockets (-want +got):\n%s", diff)
	}
}

func TestSocketsOfTCP(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ network, host, any string }{
		{"tcp4", "127.0.0.1", "0.0.0.0"}, {"tcp6", "[::1]", "[::]"},
	} {
		t.Run(test.network, func(t *testing.T) {
			t.Parallel()
			s := newSockets(t)
			var client net.Conn
			var listener net.Listener
			s.in(s.a, func() (err error) {
				listener, err = net.Listen(test.network, test.any+":8080")
				return err
			})
			s.in(s.b, func() (err error) {
				client, err = net.Dial(test.network, test.host+":8080")
				return err
			})
			server, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			from := client.LocalAddr().String()
			listens := "tcp " + test.any + ":8080 [::]:0"
			there := "tcp " + from + " " + test.host + ":8080"
			here := "tcp " + test.host + ":8080 " + from
			s.want(map[string]string{listens: "a, 1 open", there: "b, 1 open", here: "a, 1 open"})
			client.Close()
			server.Close()
			listener.Close()
			ktest.Await(t, "all are closed", func() bool { // the two ends say goodbye in a time of their own
				for _, l := range s.listed() {
					if !strings.HasSuffix(l.whose, ", 0 open") {
						return false
					}
				}
				return true
			})
			s.want(map[string]string{listens: "a, 0 open", there: "b, 0 open", here: "a, 0 open"})
		})
	}
}

// datagram makes a UDP socket that is neither bound nor connected.
func (s *sockets) datagram(family int) (socket int) {
	s.Helper()
	socket, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.Fatal(err)
	}
	return socket
}

func (s *sockets) local(socket int) netip.AddrPort {
	s.Helper()
	name, err := unix.Getsockname(socket)
	if err != nil {
		s.Fatal(err)
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	s.Fatalf("got a socket of %T", name)
	return netip.AddrPort{}
}

func TestSocketsOfUDP(t *testing.T) {
	t.Parallel()
	const nobody = " [::]:0"
	for _, test := range []struct {
		name      string
		family    int
		server    unix.Sockaddr
		host, any string
	}{
		{"IPv4", unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 5353}, "127.0.0.1", "0.0.0.0"},
		{"IPv6", unix.AF_INET6, &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16(), Port: 5353}, "[::1]", "[::]"},
		{"IPv4 of a socket of IPv6", unix.AF_INET6,
			&unix.SockaddrInet6{Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16(), Port: 5353}, "127.0.0.1", "[::]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSockets(t)
			var server, sender, connected int
			s.in(s.a, func() error {
				server = s.datagram(test.family)
				return unix.Bind(server, test.server)
			})
			bound := "udp " + test.host + ":5353" + nobody
			s.want(map[string]string{bound: "a, 1 open"})

			s.in(s.b, func() error {
				sender, connected = s.datagram(test.family), s.datagram(test.family)
				return nil
			})
			s.in(s.b, func() error { return unix.Sendto(sender, []byte("x"), 0, test.server) })
			sends := fmt.Sprintf("udp %s:%d%s", test.any, s.local(sender).Port(), nobody)
			s.want(map[string]string{bound: "a, 1 open", sends: "b, 1 open"})

			s.in(s.b, func() error { return unix.Connect(connected, test.server) })
			connects := "udp [::]:0 " + test.host + ":5353"
			s.want(map[string]string{bound: "a, 1 open", sends: "b, 1 open", connects: "b, 1 open"})

			late := "udp " + netip.AddrPortFrom(s.local(connected).Addr().Unmap(), s.local(connected).Port()).String() + nobody
			for _, socket := range []int{connected, sender, server} {
				if err := unix.Close(socket); err != nil {
					t.Fatal(err)
				}
			}
			want := map[string]string{bound: "a, 0 open", sends: "b, 0 open", connects: "b, 0 open"}
			if ktest.Kernel(t).AtLeast(ktest.Version{Major: 6, Minor: 2}) {
				want[late] = "b, 0 open"
			}
			s.want(want)
		})
	}
}

// A port that changes hands, and one that two have at once.
func TestSocketsOfTwoContainers(t *testing.T) {
	t.Parallel()
	server := &unix.SockaddrInet4{Port: 5353}
	bind := func(s *sockets, container *ktest.Cgroup) (socket int) {
		s.in(container, func() error {
			socket = s.datagram(unix.AF_INET)
			if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
				return err
			}
			return unix.Bind(socket, server)
		})
		return socket
	}
	const port = "udp 0.0.0.0:5353 [::]:0"

	s := newSockets(t)
	first := bind(s, s.a)
	unix.Close(first)
	second := bind(s, s.b)
	s.want(map[string]string{port: "b after a, 1 open"})
	third := bind(s, s.b)
	s.want(map[string]string{port: "b after a, 2 open"})
	other := bind(s, s.a)
	s.want(map[string]string{port: "b and others after a, 3 open"})
	unix.Close(second)
	unix.Close(third)
	s.want(map[string]string{port: "b and others after a, 1 open"})
	unix.Close(other)
	unix.Close(bind(s, s.a))
	s.want(map[string]string{port: "a after cgroup 0, 0 open"})
}

// Both listen on one port: each connection is known to be of the one that has it.
func TestSocketsOfTwoListeners(t *testing.T) {
	t.Parallel()
	s := newSockets(t)
	reuse := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}), err)
	}}
	const connections = 32
	type one struct{ peer, container string }
	accepted := make(chan one, connections)
	for name, container := range map[string]*ktest.Cgroup{"a": s.a, "b": s.b} {
		var listener net.Listener
		s.in(container, func() (err error) {
			listener, err = reuse.Listen(t.Context(), "tcp4", "0.0.0.0:8080")
			return err
		})
		defer listener.Close()
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				accepted <- one{c.RemoteAddr().String(), name}
				c.Close()
			}
		}()
	}
	s.in(s.a, func() error {
		for range connections {
			c, err := net.Dial("tcp4", "127.0.0.1:8080")
			if err != nil {
				return err
			}
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				return fmt.Errorf("got %w, want its end", err)
			}
			c.Close()
		}
		return nil
	})
	of := make(map[string]int)
	listed := s.listed()
	for range connections {
		c := <-accepted
		of[c.container]++
		got, _, _ := strings.Cut(listed["tcp 127.0.0.1:8080 "+c.peer].whose, ",")
		if got != c.container {
			t.Errorf("connection from %s: got %q, want %q", c.peer, got, c.container)
		}
	}
	if of["a"] == 0 || of["b"] == 0 {
		t.Fatalf("got connections %v, want some of each", of)
	}
}
