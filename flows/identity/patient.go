// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// patience is how long after a read what comes next may wait for more, so that it is read
	// together. To wake up for a change of a pod, and for each third of it, costs an agent more
	// than to read it.
	patience = 100 * time.Millisecond
	// youth is for how long nothing waits on a new connection: objects are listed then.
	youth = 10 * time.Second
	// bulk is how much is read at once, in bytes. If there was as much there may be more, of a list
	// or of very many changes, for which nothing waits.
	bulk = 64 << 10
)

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// patiently dials connections on which news waits for more. What comes after a silence does not wait.
func patiently(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return newPatient(c), nil
	}
}

// patient is a connection with one reader at a time.
type patient struct {
	net.Conn
	room, left []byte // left is what was read into the room and has not been taken
	born, last time.Time
	isFull     bool // the room was, by the last read
	close      sync.Once
	closed     chan struct{}
}

func newPatient(c net.Conn) *patient {
	return &patient{Conn: c, room: make([]byte, bulk), born: time.Now(), closed: make(chan struct{})}
}

// Read implements [net.Conn]. A deadline may be noticed later by as long as news waits.
func (p *patient) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		p.wait()
		n, err := p.Conn.Read(p.room)
		if n == 0 {
			return 0, err // else it comes again with the next read
		}
		p.left, p.last, p.isFull = p.room[:n], time.Now(), n == len(p.room)
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

func (p *patient) wait() {
	now := time.Now()
	rest := patience - now.Sub(p.last)
	if rest <= 0 || p.isFull || now.Sub(p.born) < youth {
		return
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.closed:
	}
}

// Close implements [net.Conn].
func (p *patient) Close() error {
	p.close.Do(func() { close(p.closed) })
	return p.Conn.Close()
}
