// SPDX-License-Identifier: Apache-2.0

// Package servertest has what tests of servers share: a [Listener] in memory, whose
// connections block in a way that testing/synctest understands, and a [Log] that can be
// read while it is written. A test must have closed what it dialed and listened on before
// its bubble ends.
package servertest

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
)

// Listener is a listener in memory, without a buffer and with synctest's time.
type Listener struct {
	// Closed is closed with the listener.
	Closed chan struct{}

	connections chan net.Conn
	once        sync.Once
}

// NewListener returns a listener.
func NewListener() *Listener {
	return &Listener{Closed: make(chan struct{}), connections: make(chan net.Conn)}
}

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.connections:
		return c, nil
	case <-l.Closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.Closed) })
	return nil
}

// Addr implements [net.Listener].
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// Dial returns a connection that was accepted; the error is [net.ErrClosed].
func (l *Listener) Dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.connections <- server:
		return client, nil
	case <-l.Closed:
		return nil, net.ErrClosed
	}
}

// DialContext is for [net/http.Transport]: it is Dial, whatever the address.
func (l *Listener) DialContext(context.Context, string, string) (net.Conn, error) { return l.Dial() }

// Log is a log that can be read while it is written.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns what was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Lines returns how many lines were written.
func (l *Log) Lines() int { return strings.Count(l.String(), "\n") }
