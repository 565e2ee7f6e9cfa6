// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Gate is a way to an address that counts what passes, and can be shut. It knows
// nothing of what it carries, which may be TLS.
type Gate struct {
	// Address is the gate's own, host:port.
	Address string

	listener  net.Listener
	target    string
	received  atomic.Int64
	sent      atomic.Int64
	accepting sync.WaitGroup

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]struct{}
}

// NewGate returns an open gate to a target. The caller closes it.
func NewGate(target string) (*Gate, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open gate: %w", err)
	}
	g := &Gate{Address: l.Addr().String(), listener: l, target: target, conns: make(map[net.Conn]struct{})}
	g.accepting.Go(g.accept)
	return g, nil
}

// Received returns how many bytes came from the target.
func (g *Gate) Received() int64 { return g.received.Load() }

// Sent returns how many bytes went to the target.
func (g *Gate) Sent() int64 { return g.sent.Load() }

// Shut breaks every connection off and lets none in until [Gate.Open].
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for c := range g.conns {
		c.Close()
	}
}

// Open lets connections in again.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}

// Close breaks everything off.
func (g *Gate) Close() {
	g.listener.Close()
	g.Shut()
	g.accepting.Wait()
}

func (g *Gate) accept() {
	for {
		c, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.accepting.Go(func() { g.carry(c) })
	}
}

// carry carries one connection until either side ends it.
func (g *Gate) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !g.enter(client, server) {
		return
	}
	defer g.leave(client, server)
	ends := make(chan struct{}, 2)
	carry := func(to io.Writer, from io.Reader, count *atomic.Int64) {
		_, _ = io.Copy(counter{to, count}, from)
		ends <- struct{}{}
	}
	g.accepting.Go(func() { carry(client, server, &g.received) })
	g.accepting.Go(func() { carry(server, client, &g.sent) })
	<-ends
}

func (g *Gate) enter(conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return false
	}
	for _, c := range conns {
		g.conns[c] = struct{}{}
	}
	return true
}

func (g *Gate) leave(conns ...net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		delete(g.conns, c)
	}
}

// counter counts what is written.
type counter struct {
	io.Writer
	count *atomic.Int64
}

func (c counter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.count.Add(int64(n))
	return n, err
}
