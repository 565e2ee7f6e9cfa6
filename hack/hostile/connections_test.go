// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// connectionAttacks are those by HTTP without TLS.
func connectionAttacks() []attack {
	long := "x: " + strings.Repeat("y", 1<<12) + "\r\n"
	return []attack{
		{name: "headers that do not end, from one address", refused: []string{"headers"}, run: fromPod(64, sendForever("GET / HTTP/1.1\r\n", long))},
		{name: "headers that come byte by byte", refused: []string{"source_connections"}, run: fromPod(400, slowly("GET / HTTP/1.1\r\n", "a: b\r\n"))},
		{name: "headers of many fields, and of few that are long", refused: []string{"headers"}, run: fromPod(32, manyFields)},
		{name: "idle connections, each with an answer, from 200 addresses", refused: []string{"connections"}, run: fromOutside(1000, idle)},
		{name: "readers of /metrics at 128 B/s", refused: []string{"source_answers"}, run: fromPod(32, slowReader)},
		{name: "scrapes as fast as they can be asked for", run: fromPod(16, scrapeForever)},
		{name: "requests at random: paths, methods, hosts, garbage", run: fromPod(16, randomRequests)},
		{name: "bodies without an end", refused: []string{"body"}, run: fromPod(16, bodies)},
		{name: "connections to the unix socket that stay", run: unixSocket},
	}
}

// client does something with a connection to the agent, and returns when that ends.
type client func(ctx context.Context, c net.Conn)

// fromPod keeps so many connections of a pod at it.
func fromPod(n int, do client) func(context.Context, *testing.T, *world) {
	return func(ctx context.Context, _ *testing.T, w *world) {
		d := newDoor(ctx, w.hostile[3])
		crowd(ctx, n, func(ctx context.Context, _ int) { d.keepAt(ctx, "", w.hostile[3].Gateway, do) })
	}
}

// fromOutside keeps so many at it, from the addresses of strangers in turn.
func fromOutside(n int, do client) func(context.Context, *testing.T, *world) {
	return func(ctx context.Context, _ *testing.T, w *world) {
		d := newDoor(ctx, w.outside)
		crowd(ctx, n, func(ctx context.Context, number int) {
			d.keepAt(ctx, fmt.Sprintf("%s.%d", outside, 10+number%strangers), outside+".1", do)
		})
	}
}

// door connects out of a namespace by a few threads, of which each connection would have to
// have one for itself otherwise.
type door chan passage

// passage is a connection that is asked for.
type passage struct {
	source, to string
	made       chan net.Conn // nil if there is none
}

// newDoor opens one until the context ends.
func newDoor(ctx context.Context, in namespace) door {
	d := make(door)
	for range 4 {
		go in.Do(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case p := <-d:
					conn, err := dialer(p.source).DialContext(ctx, "tcp4", net.JoinHostPort(p.to, port))
					if err != nil {
						conn = nil
					}
					p.made <- conn
				}
			}
		})
	}
	return d
}

// dial returns nil if there is no connection.
func (d door) dial(ctx context.Context, source, to string) net.Conn {
	p := passage{source, to, make(chan net.Conn, 1)}
	select {
	case <-ctx.Done():
		return nil
	case d <- p:
		return <-p.made
	}
}

// keepAt connects again and again. A connection ends with the context.
func (d door) keepAt(ctx context.Context, source, to string, do client) {
	for ctx.Err() == nil {
		conn := d.dial(ctx, source, to)
		if conn == nil {
			sleep(ctx, 10*time.Millisecond)
			continue
		}
		release := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
		do(ctx, conn)
		release()
		conn.(*net.TCPConn).SetLinger(0) // no port waits, as they are few
		conn.Close()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// sendForever sends some bytes and then others as long as they are taken.
func sendForever(first, then string) client {
	return func(_ context.Context, c net.Conn) {
		_, err := io.WriteString(c, first)
		for err == nil {
			_, err = io.WriteString(c, then)
		}
	}
}

// slowly sends a piece four times a second.
func slowly(first, then string) client {
	return func(ctx context.Context, c net.Conn) {
		_, err := io.WriteString(c, first)
		for err == nil && ctx.Err() == nil {
			sleep(ctx, 250*time.Millisecond)
			_, err = io.WriteString(c, then)
		}
	}
}

func manyFields(_ context.Context, c net.Conn) {
	fields := "a: b\r\n"
	times := 4000
	if rand.IntN(2) == 0 {
		fields, times = "Cookie: "+strings.Repeat("x", 60_000)+"\r\n", 1
	}
	io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: a\r\n"+strings.Repeat(fields, times)+"\r\n")
	io.Copy(io.Discard, c)
}

const get = "GET %s HTTP/1.1\r\nHost: a\r\n\r\n"

// idle gets one answer and stays.
func idle(_ context.Context, c net.Conn) {
	fmt.Fprintf(c, get, "/healthz")
	io.Copy(io.Discard, c)
}

func slowReader(ctx context.Context, c net.Conn) {
	c.(*net.TCPConn).SetReadBuffer(1)
	fmt.Fprintf(c, get, "/metrics")
	for b := make([]byte, 32); ctx.Err() == nil; sleep(ctx, 250*time.Millisecond) {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

func scrapeForever(_ context.Context, c net.Conn) {
	reader := bufio.NewReader(c)
	for {
		fmt.Fprintf(c, get, "/metrics")
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}

// randomRequests are no HTTP, or are for what is not there.
func randomRequests(_ context.Context, c net.Conn) {
	text := func(n int) string {
		b := make([]byte, rand.IntN(n))
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		return string(b)
	}
	switch rand.IntN(3) {
	case 0:
		io.WriteString(c, text(2000)+"\r\n\r\n")
	case 1:
		fmt.Fprintf(c, "%s /%x HTTP/1.1\r\nHost: %s\r\n\r\n", strings.ToUpper(fmt.Sprintf("M%x", text(4))), text(1000), "h"+fmt.Sprintf("%x", text(100)))
	case 2:
		fmt.Fprintf(c, "GET /../../%s?%x=%x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: \x1b[2J\r\n\r\n", strings.Repeat("%2e%2e/", 100), text(500), text(500))
	}
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	io.Copy(io.Discard, io.LimitReader(c, 1<<12))
}

func bodies(_ context.Context, c net.Conn) {
	header := "Content-Length: 1000000000000"
	if rand.IntN(2) == 0 {
		header = "Transfer-Encoding: chunked"
	}
	_, err := fmt.Fprintf(c, "POST /metrics HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", header)
	for chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<14, strings.Repeat("x", 1<<14)); err == nil; {
		_, err = io.WriteString(c, chunk)
	}
}

// unixSocket connects as somebody of the agent's own user would, and says nothing.
func unixSocket(ctx context.Context, _ *testing.T, w *world) {
	crowd(ctx, 600, func(ctx context.Context, _ int) {
		for ctx.Err() == nil {
			c, err := new(net.Dialer).DialContext(ctx, "unix", w.agent.socket)
			if err != nil {
				sleep(ctx, 10*time.Millisecond)
				continue
			}
			release := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
			io.Copy(io.Discard, c)
			release()
			c.Close()
		}
	})
}
