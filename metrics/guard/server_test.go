// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podmeter/podmeter/internal/servertest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// served is a server under guard.
type served struct {
	guard  *Guard
	log    *servertest.Log
	tables []*table
}

// serve serves on a listener until the test ends or stop is called.
func serve(t *testing.T, listener net.Listener, handler http.Handler, change func(*limits)) (s *served, stop func()) {
	t.Helper()
	s = &served{log: new(servertest.Log)}
	var err error
	if s.guard, err = New(Options{Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(s.log, nil))}); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	guarded, release := s.guard.Protect(server, listener)
	table := guarded.(*tableListener).table
	if change != nil {
		change(&table.limits)
	}
	s.tables = append(s.tables, table)
	done := make(chan error)
	go func() { done <- server.Serve(guarded) }()
	stop = sync.OnceFunc(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: got %v, want %v", err, http.ErrServerClosed)
		}
		release()
	})
	t.Cleanup(stop)
	return s, stop
}

// dial returns a connection, which is closed if the listener is: a client may dial more than it
// comes to need.
func dial(l *servertest.Listener) net.Conn {
	c, err := l.Dial()
	if err != nil {
		c, _ = net.Pipe()
		c.Close()
	}
	return c
}

func (s *served) count(why reason) float64 {
	return testutil.ToFloat64(s.guard.refused.WithLabelValues(string(why)))
}

// after returns when a connection ends, by synctest's clock, while what is sent comes byte
// by byte, one a second, after what is sent at once.
func after(t *testing.T, c net.Conn, atOnce, slowly string) time.Duration {
	t.Helper()
	began := time.Now()
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, err := io.WriteString(c, atOnce); err != nil {
			return
		}
		for i := range slowly {
			time.Sleep(time.Second)
			if _, err := io.WriteString(c, slowly[i:i+1]); err != nil {
				return
			}
		}
	})
	io.Copy(io.Discard, c)
	took := time.Since(began)
	c.Close()
	wait.Wait()
	return took
}

const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// Who is slow, or sends nothing, is not waited for.
func TestTimes(t *testing.T) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	for _, c := range []struct {
		name, atOnce, slowly string
		want                 time.Duration
		why                  reason
	}{
		{"sends nothing", "", "", headerTimeout, reasonTimeout},
		{"header byte by byte", "", request + strings.Repeat("x", 99), headerTimeout, reasonTimeout},
		{"header lines without an end", "GET / HTTP/1.1\r\n", strings.Repeat("a: b\r\n", 20), headerTimeout, reasonTimeout},
		{"idle", request, "", idleTimeout, ""},
		{"second header byte by byte", request, request, 4*time.Second + headerTimeout, reasonTimeout},
		{"body byte by byte", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("x", 99), readTimeout, ""},
		{"chunks byte by byte", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\nx\r\n", 20), readTimeout, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				listener := servertest.NewListener()
				s, stop := serve(t, listener, ok, nil)
				if got := after(t, dial(listener), c.atOnce, c.slowly).Round(time.Second); got > c.want {
					t.Errorf("ended after %v, want %v", got, c.want)
				}
				for _, why := range reasons() {
					if got := s.count(why); (why == c.why) != (got == 1) {
						t.Errorf("refused for %s: got %v, want it counted: %v", why, got, why == c.why)
					}
				}
				stop()
			})
		})
	}
}

// A reader below the least rate is ended, one above it gets all.
func TestSlowReaders(t *testing.T) {
	answer := bytes.Repeat([]byte("x"), 10*paceBytes)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer Answering(r.Context())()
		w.Write(answer)
	})
	for _, c := range []struct {
		rate int // bytes a second
		all  bool
	}{{128, false}, {paceBytes / 11, false}, {paceBytes / 9, false}, {paceBytes / 5, true}, {1 << 20, true}} {
		t.Run(fmt.Sprint(c.rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				listener := servertest.NewListener()
				s, stop := serve(t, listener, handler, nil)
				client := dial(listener)
				io.WriteString(client, request)
				response, err := http.ReadResponse(bufio.NewReaderSize(&slowly{client, c.rate}, 16), nil)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				got, err := io.Copy(io.Discard, response.Body)
				if all := err == nil && got == int64(len(answer)); all != c.all || time.Since(began) > writeTimeout+paceTimeout {
					t.Errorf("got %d of %d bytes and %v after %v, want all: %v", got, len(answer), err, time.Since(began), c.all)
				}
				if got := s.count(reasonSlowReader); (got == 1) == c.all {
					t.Errorf("slow readers: got %v counted, want %v", got, !c.all)
				}
				client.Close()
				stop()
				if sum := s.tables[0].sum; sum != (group{}) {
					t.Errorf("left: got %+v, want nothing", sum)
				}
			})
		})
	}
}

// slowly reads some bytes a second.
type slowly struct {
	net.Conn
	rate int
}

func (s *slowly) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p[:min(len(p), 16)])
	time.Sleep(time.Duration(n) * time.Second / time.Duration(s.rate))
	return n, err
}

// Requests that are not for these servers are refused, and the connection ends with them
// where the rest of them is unknown.
func TestRequests(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	fields := func(n int) (b string) {
		for i := range n {
			b += fmt.Sprintf("a%d: b\r\n", i)
		}
		return b
	}
	for _, c := range []struct {
		name, lines, body string
		code              int
		why               reason
	}{
		{"plain", "GET / HTTP/1.1", "", 200, ""},
		{"large header", "GET / HTTP/1.1\r\nCookie: " + strings.Repeat("x", headerBytes-100), "", 200, ""},
		{"larger", "GET / HTTP/1.1\r\nCookie: " + strings.Repeat("x", headerBytes+8192), "", 431, reasonHeaders},
		{"many fields", "GET / HTTP/1.1\r\n" + fields(headerFields-1) + "z: z", "", 200, ""},
		{"more", "GET / HTTP/1.1\r\n" + fields(headerFields) + "z: z", "", 431, reasonHeaders},
		{"one field many times", "GET / HTTP/1.1\r\n" + strings.Repeat("a: b\r\n", headerFields) + "z: z", "", 431, reasonHeaders},
		{"no HTTP", "\x16\x03\x01", "", 400, reasonHeaders},
		{"GET with a body", "GET / HTTP/1.1\r\nContent-Length: 1", "x", 413, reasonBody},
		{"GET with chunks", "GET / HTTP/1.1\r\nTransfer-Encoding: chunked", "0\r\n\r\n", 413, reasonBody},
		{"POST", "POST / HTTP/1.1\r\nContent-Length: 1000", strings.Repeat("x", 1000), 200, ""},
		{"large POST", "POST / HTTP/1.1\r\nContent-Length: 1000000000000", "", 413, reasonBody},
		{"large chunks", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked", "10000\r\n" + strings.Repeat("x", 1<<16) + "\r\n0\r\n\r\n", 418, ""},
		{"unknown coding", "POST / HTTP/1.1\r\nTransfer-Encoding: gzip", "", 501, reasonHeaders},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				listener := servertest.NewListener()
				s, stop := serve(t, listener, handler, nil)
				client := dial(listener)
				var wait sync.WaitGroup
				wait.Go(func() { io.WriteString(client, c.lines+"\r\nHost: a\r\n\r\n"+c.body) })
				response, err := http.ReadResponse(bufio.NewReader(client), nil)
				if err != nil || response.StatusCode != c.code || c.code != 200 && !response.Close && c.code != 418 {
					t.Fatalf("got %v, %v, want %d", response, err, c.code)
				}
				client.Close()
				wait.Wait()
				time.Sleep(time.Second) // net/http waits before it closes what it has not read
				stop()
				if c.why != "" && s.count(c.why) != 1 {
					t.Errorf("refused for %s: got %v, want 1", c.why, s.count(c.why))
				}
			})
		})
	}
}

// Who sends more than any client has to say is ended, whatever he sends.
func TestFloodOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := servertest.NewListener()
		s, stop := serve(t, listener, http.NotFoundHandler(), nil)
		client := dial(listener)
		var wait sync.WaitGroup
		wait.Go(func() { io.Copy(io.Discard, client) })
		sent := 0
		for sent < 10*inputBurst {
			n, err := io.WriteString(client, request)
			sent += n
			if err != nil {
				break
			}
		}
		if sent > inputBurst+inputRate || sent < inputBurst {
			t.Errorf("sent %d bytes, want it ended after some %d", sent, inputBurst)
		}
		wait.Wait()
		client.Close()
		stop()
		if s.count(reasonFlood) != 1 {
			t.Errorf("floods: got %v, want 1", s.count(reasonFlood))
		}
	})
}
