// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/internal/ktest"
)

// kept is whether the state of a connection's end is with its socket.
func (c *connected) kept(at end) bool {
	c.Helper()
	var (
		key    SocketSocketKey
		owners SocketSocketOwners
	)
	entries := c.objects.Sockets.Iterate()
	for entries.Next(&key, &owners) {
		if address(key.Local, key.LocalPort) == at.local && address(key.Peer, key.PeerPort) == at.peer {
			return owners.Now.Kept != 0
		}
	}
	c.Fatalf("no entry of %v: %v", at, entries.Err())
	return false
}

// echo sends a byte there and back, again and again, until an end has so many samples.
func (c *connected) echo(client, server net.Conn, at end, n uint32) {
	c.Helper()
	b := make([]byte, 1)
	ktest.Await(c, "there are samples", func() bool {
		for range 100 {
			if err := errors.Join(deliver(client, server, b), deliver(server, client, b)); err != nil {
				c.Fatal(err)
			}
		}
		return samples(c.health(c.objects.Health0)[at]) >= n
	})
}

// The state of a connection is with its socket from the first sample on that comes after its
// beginning, at each end for itself, and not before.
func TestHealthKeepsNoStateOfWhatBegins(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	client, server := c.pair(c.listen("tcp4", there4+":8080"))
	at, other := endOf("a", client), endOf("b", server)
	if c.kept(other) {
		t.Error("got a state of the end that was accepted, want none")
	}
	c.echo(client, server, at, 2)
	if !c.kept(at) {
		t.Error("got no state of the client's end, want one")
	}
}

// A state that is lost, as if another build's maps had begun anew, is not made up: what it
// had taken down would be counted once more.
func TestHealthOfALostState(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	client, server := c.pair(c.listen("tcp4", there4+":8080"))
	c.transfer(client, server)
	at := endOf("a", client)
	before := c.health(c.objects.Health0)[at]
	if before.Segments == 0 || !c.kept(at) {
		t.Fatalf("got %d segments retransmitted, want some, and a state", before.Segments)
	}
	raw, err := client.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = c.objects.TcpSockets.Delete(int32(fd)) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	// By then an RTT would be due at this end as well.
	other := endOf("b", server)
	c.echo(client, server, other, samples(c.health(c.objects.Health0)[other])+1)
	client.Close()
	server.Close()
	ktest.Await(t, "the client's end is closed", func() bool {
		for _, l := range c.listed() {
			if l.whose == "a, 1 open" {
				return false
			}
		}
		return true
	})
	if after := c.health(c.objects.Health0)[at]; after != before {
		t.Errorf("got %+v, want as before %+v", after, before)
	}
}

// A connection between ends that had one before has its state kept from its beginning on.
func TestHealthOfEndsThatAreUsedAgain(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	l := c.listen("tcp4", there4+":8080")
	from := net.TCPAddr{IP: net.ParseIP(here4), Port: 40000}
	for n := uint32(1); n <= 2; n++ {
		var client net.Conn
		c.in(c.a, func() (err error) {
			client, err = (&net.Dialer{LocalAddr: &from}).Dial("tcp", l.Addr().String())
			return err
		})
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		at, other := endOf("a", client), endOf("b", server)
		for _, e := range []end{at, other} {
			if h := c.health(c.objects.Health0)[e]; h.Opened != n || failed(h) != 0 {
				t.Errorf("%v: got %d opened and %d failed, want %d and 0", e, h.Opened, failed(h), n)
			}
			if n == 2 && !c.kept(e) {
				t.Errorf("%v: got no state of the second connection, want one", e)
			}
		}
		// A reset, so that neither end waits for the other.
		if err := errors.Join(client.(*net.TCPConn).SetLinger(0), client.Close(), server.Close()); err != nil {
			t.Fatal(err)
		}
		ktest.Await(t, "both ends are closed", func() bool {
			all := c.health(c.objects.Health0)
			return samples(all[at]) >= 2*n && samples(all[other]) >= 2*n
		})
	}
}

// A connection by TCP Fast Open is accepted before its handshake ends. Its state is kept from
// then on, so that one that is reset before is not taken for one that failed.
func TestHealthOfFastOpen(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	for _, ns := range []*ktest.Namespace{c.pod, c.there} {
		ns.Sysctl(t, "net/ipv4/tcp_fastopen", "1543") // both sides, for all listeners, without cookies
	}
	l := c.listen("tcp4", there4+":8080")
	c.in(c.a, func() error {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		return unix.Sendto(socket, []byte("x"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Addr: [4]byte{198, 51, 100, 2}, Port: 8080})
	})
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	other := endOf("b", server)
	if !c.kept(other) {
		t.Error("got no state of the end that was accepted, want one")
	}
	server.Close()
	ktest.Await(t, "it is closed", func() bool { return samples(c.health(c.objects.Health0)[other]) >= 1 })
	if h := c.health(c.objects.Health0)[other]; h.Opened != 1 || failed(h) != 0 {
		t.Errorf("got %d opened and %d failed, want 1 and 0", h.Opened, failed(h))
	}
}
