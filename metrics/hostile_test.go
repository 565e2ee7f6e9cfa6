// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
)

// within bounds what has to come.
const within = time.Minute

// dialFrom connects from an address of the loopback network.
func dialFrom(t *testing.T, source, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := dialer.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(within))
	return c
}

// ask sends a request for a path, and returns the code of the answer, whose body it reads.
func ask(t *testing.T, c net.Conn, path string) int {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path); err != nil {
		return 0
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0
	}
	return response.StatusCode
}

// isOpen reports whether a connection has not been ended by the other side, which on the
// loopback is known at once.
func isOpen(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// refusedBy returns podmeter_http_refused_total of a reason.
func refusedBy(t *testing.T, o ServerOptions, reason string) float64 {
	t.Helper()
	families, err := o.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == "podmeter_http_refused_total" && metric.GetLabel()[0].GetValue() == reason {
				return metric.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no podmeter_http_refused_total{reason=%q}", reason)
	return 0
}

// openOf counts the connections that are open.
func openOf(all []net.Conn) (open int) {
	for _, c := range all {
		if isOpen(c) {
			open++
		}
	}
	return open
}

// 16 connections of one address stay, and each has its answer; many more do not, and take
// nothing from another address.
func TestConnectionsOfOneSource(t *testing.T) {
	o := serverOptions(t, &source{snapshot: handMade()})
	address := serve(t, newServer(t, o))
	var all []net.Conn
	for n := range 400 {
		c := dialFrom(t, "127.0.0.2", address)
		all = append(all, c)
		if got := ask(t, c, "/healthz"); got != http.StatusOK {
			t.Fatalf("connection %d: got %d, want 200: an earlier one makes room", n, got)
		}
		if n == 15 && refusedBy(t, o, "source_connections") != 0 {
			t.Errorf("with 16 connections some are refused, want none")
		}
	}
	refused := int(refusedBy(t, o, "source_connections"))
	open := openOf(all)
	for deadline := time.Now().Add(within); refused+open != len(all); open = openOf(all) { // closed a moment later
		if time.Now().After(deadline) {
			t.Fatalf("counted as refused: got %d with %d open, want %d together", refused, open, len(all))
		}
	}
	if open < 16 || open > 64 {
		t.Errorf("idle connections of one address: got %d, want at least 16 and not many more", open)
	}
	if got := ask(t, dialFrom(t, "127.0.0.1", address), "/metrics"); got != http.StatusOK {
		t.Errorf("a scrape from another address: got %d, want 200", got)
	}
}

// 256 connections of many addresses stay, and when all places are taken by more of them a
// new address gets in, again and again.
func TestConnectionsOfManySources(t *testing.T) {
	o := serverOptions(t, &source{snapshot: handMade()})
	address := serve(t, newServer(t, o))
	var all []net.Conn
	for n := range 600 {
		c := dialFrom(t, fmt.Sprintf("127.0.1.%d", 1+n%40), address)
		if got := ask(t, c, "/healthz"); got != http.StatusOK {
			t.Fatalf("connection %d: got %d, want 200", n, got)
		}
		if all = append(all, c); n == 254 && refusedBy(t, o, "connections") != 0 {
			t.Errorf("with 255 connections some are refused, want none")
		}
	}
	open := openOf(all)
	for deadline := time.Now().Add(within); open != 256 && time.Now().Before(deadline); open = openOf(all) { // closed a moment later
	}
	if open != 256 {
		t.Errorf("open: got %d, want 256", open)
	}
	kept := dialFrom(t, "127.0.0.1", address)
	for range 20 {
		if got := ask(t, kept, "/metrics"); got != http.StatusOK {
			t.Fatalf("a scraper that keeps its connection: got %d, want 200", got)
		}
		if got := ask(t, dialFrom(t, "127.0.0.3", address), "/healthz"); got != http.StatusOK {
			t.Fatalf("a probe that does not: got %d, want 200", got)
		}
		dialFrom(t, "127.0.1.1", address)
	}
}

// A header without an end is refused long before it is large.
func TestHeaderWithoutAnEnd(t *testing.T) {
	o := serverOptions(t, &source{})
	address := serve(t, newServer(t, o))
	c := dialFrom(t, "127.0.0.2", address)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("a: b\r\n", 6000)); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %v, %v, want 431", response, err)
	}
}

// long is a snapshot whose answer is longer, with some 7 MB, than what the kernel would take
// over at once if it might.
func long() *flows.Snapshot {
	s := large(6000)
	for i := range s.Flows {
		s.Flows[i].Labels.Peer = fmt.Sprintf("%0250d", i)
		s.Flows[i].Labels.PeerNamespace, s.Flows[i].Labels.Service = strings.Repeat("n", 250), strings.Repeat("s", 250)
	}
	return s
}

// Readers who do not read, as many as there may be, keep nobody from being answered: neither
// another address nor their own.
func TestSlowReadersTakeNobodysPlace(t *testing.T) {
	effort.Long(t, "60 readers of answers of megabytes")
	o := serverOptions(t, &source{snapshot: long()})
	address := serve(t, newServer(t, o))
	var readers []net.Conn
	for n := range 60 {
		c := dialFrom(t, fmt.Sprintf("127.0.0.%d", 2+n%4), address)
		c.(*net.TCPConn).SetReadBuffer(4096)
		if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		readers = append(readers, c)
	}
	for _, c := range readers {
		io.ReadFull(c, make([]byte, 1)) // it is being answered, or was ended for another
	}
	for _, source := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.2"} {
		if got := ask(t, dialFrom(t, source, address), "/metrics"); got != http.StatusOK {
			t.Errorf("a scrape from %s: got %d, want 200", source, got)
		}
	}
	if refusedBy(t, o, "source_answers") == 0 {
		t.Error("ended slow readers: got none, want the oldest of their address")
	}
}

// Four of one address are answered at a time, and all in full.
func TestAnswersAtATime(t *testing.T) {
	o := serverOptions(t, &source{snapshot: large(10_000)})
	address := serve(t, newServer(t, o))
	var ready, done sync.WaitGroup
	all := make(chan struct{})
	for range 4 {
		ready.Add(1)
		done.Go(func() {
			c := dialFrom(t, "127.0.0.2", address)
			c.(*net.TCPConn).SetReadBuffer(64 << 10)
			io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
			reader := bufio.NewReaderSize(c, 16)
			reader.Peek(1)
			ready.Done()
			<-all // are being answered
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Error(err)
				return
			}
			body, err := io.ReadAll(response.Body)
			if err != nil || bytes.Count(body, []byte("\n")) < 10_000 {
				t.Errorf("got %d bytes and %v, want all", len(body), err)
			}
		})
	}
	ready.Wait()
	close(all)
	done.Wait()
	if got := refusedBy(t, o, "source_answers"); got != 0 {
		t.Errorf("refused: got %v, want none", got)
	}
}
