// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds the wait for what has to come.
const patience = 20 * time.Second

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: want %s", patience, what)
		}
	}
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// reluctant asks, and has next to no room for an answer.
func reluctant(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	}}
	c, err := dialer.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// What a closed connection has not delivered keeps its place, for a while: a reader of the
// kernel's buffers alone is a reader.
func TestUndeliveredAnswers(t *testing.T) {
	answer := bytes.Repeat([]byte("x"), 64<<10) // fits in the kernel's buffer
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(answer) })
	for _, c := range []struct {
		name   string
		linger time.Duration
		reads  bool
	}{{"read in time", lingerTimeout, true}, {"never read", 300 * time.Millisecond, false}} {
		t.Run(c.name, func(t *testing.T) {
			listener := loopback(t)
			s, stop := serve(t, listener, handler, func(l *limits) { l.linger = c.linger })
			table := s.tables[0]
			client := reluctant(t, listener.Addr().String())
			defer client.Close()
			lingers := func() (n int) {
				table.mu.Lock()
				defer table.mu.Unlock()
				for conn := range table.conns {
					if conn.lingering {
						n++
					}
				}
				return n
			}
			eventually(t, "the closed connection to keep its place", func() bool { return lingers() == 1 || s.count(reasonSlowReader) == 1 })
			if c.reads {
				if got, err := io.Copy(io.Discard, client); err != nil || got < int64(len(answer)) {
					t.Errorf("got %d bytes and %v, want all", got, err)
				}
			}
			eventually(t, "its place to be free", func() bool {
				table.mu.Lock()
				defer table.mu.Unlock()
				return table.sum == group{}
			})
			if !c.reads {
				if _, err := io.Copy(io.Discard, client); !errors.Is(err, unix.ECONNRESET) || s.count(reasonSlowReader) != 1 {
					t.Errorf("got %v and %v slow readers, want it reset and one", err, s.count(reasonSlowReader))
				}
			}
			stop()
		})
	}
}

// Who closes its own direction after a request has an answer all the same.
func TestHalfClosed(t *testing.T) {
	listener := loopback(t)
	_, stop := serve(t, listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "answer") }), nil)
	defer stop()
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.HasSuffix(got, []byte("\r\n\r\nanswer")) {
		t.Errorf("got %q, %v, want the answer", got, err)
	}
}

// The kernel's buffers of what is accepted are bounded: it doubles what it is told.
func TestBuffersAreBounded(t *testing.T) {
	listener := loopback(t)
	s, stop := serve(t, listener, http.NotFoundHandler(), nil)
	defer stop()
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	table := s.tables[0]
	var accepted *net.TCPConn
	eventually(t, "it to be accepted", func() bool {
		table.mu.Lock()
		defer table.mu.Unlock()
		for conn := range table.conns {
			accepted = conn.Conn.(*net.TCPConn)
		}
		return accepted != nil
	})
	raw, err := accepted.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{unix.SO_SNDBUF: 2 * sendBuffer, unix.SO_RCVBUF: 2 * receiveBuffer} {
			if got, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option); err != nil || got != want {
				t.Errorf("option %d: got %d, %v, want %d", option, got, err, want)
			}
		}
	})
}
