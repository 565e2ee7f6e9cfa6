// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math"
	"net"
	"net/http"
	"syscall"

	"github.com/podmeter/podmeter/internal/ratelog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// Options are what a [Guard] needs.
type Options struct {
	// Registerer gets podmeter_http_refused_total.
	Registerer prometheus.Registerer
	// Logger is limited by package ratelog, as peers cause lines.
	Logger *slog.Logger
	// Logins is whether passwords are checked, which is expensive.
	Logins bool
}

// Guard counts and logs what its servers refuse.
type Guard struct {
	refused *prometheus.CounterVec
	log     *slog.Logger // limited
	logins  *logins      // nil if none are checked
}

// New returns a guard. Guards of one registry share the counter. An error means that
// something else has its name.
func New(options Options) (*Guard, error) {
	g := &Guard{refused: newRefused(), log: ratelog.Limit(options.Logger)}
	if options.Logins {
		g.logins = newLogins()
	}
	err := options.Registerer.Register(g.refused)
	var earlier prometheus.AlreadyRegisteredError
	if errors.As(err, &earlier) {
		var same bool
		if g.refused, same = earlier.ExistingCollector.(*prometheus.CounterVec); same {
			return g, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("register counter of refusals: %w", err)
	}
	return g, nil
}

// Logger returns the limited one, to be used for whatever a peer can cause.
func (g *Guard) Logger() *slog.Logger { return g.log }

// Protect sets up a server, which has a handler and was not started, and returns the
// listener that it is to serve instead. The handler may be replaced by one that calls it,
// such as one with authentication, before the server is started. When the server has
// ended, release has to be called: it cuts off what is left.
func (g *Guard) Protect(server *http.Server, inner net.Listener) (guarded net.Listener, release func()) {
	t := newTable(defaultLimits(descriptors()), g.refuse)
	boundBuffers(inner)
	g.bound(server)
	server.Handler = authenticated(server.Handler)
	server.BaseContext = func(net.Listener) context.Context {
		// Called once, before the first connection and after whoever replaced the handler.
		server.Handler = g.front(server.Handler)
		return context.Background()
	}
	server.ConnContext = func(ctx context.Context, outer net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, connOf(outer))
	}
	server.ConnState = func(outer net.Conn, state http.ConnState) {
		if c := connOf(outer); c != nil {
			c.state(outer, state)
		}
	}
	return &tableListener{Listener: inner, table: t}, func() {
		t.close()
		ratelog.Flush(g.log)
	}
}

// bound sets the limits that the server itself keeps.
func (g *Guard) bound(server *http.Server) {
	server.MaxHeaderBytes = headerBytes
	server.ReadHeaderTimeout, server.ReadTimeout = headerTimeout, readTimeout
	server.WriteTimeout, server.IdleTimeout = writeTimeout, idleTimeout
	server.ErrorLog = log.New(errorLog{g.log}, "", 0)
	server.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams,
		// The least that the protocol allows.
		MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: bodyBytes,
		MaxDecoderHeaderTableSize: 4 << 10, MaxEncoderHeaderTableSize: 4 << 10,
		SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: paceTimeout,
		CountError: func(string) { g.refused.WithLabelValues(string(reasonHTTP2)).Inc() },
	}
}

// refuse counts and logs.
func (g *Guard) refuse(why reason, from origin) {
	g.refused.WithLabelValues(string(why)).Inc()
	g.log.Warn("refused or cut off an HTTP peer: "+string(why), "source", from.String())
}

// tableListener admits connections.
type tableListener struct {
	net.Listener
	table *table
}

// Accept implements [net.Listener].
func (l *tableListener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.table.admit(inner); c != nil {
			return c, nil
		}
	}
}

// boundBuffers sets the sizes of the kernel's buffers of the connections that a listener
// will accept, which inherit them.
func boundBuffers(inner net.Listener) {
	tcp, ok := inner.(*net.TCPListener)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) { // what fails here leaves the kernel's own bounds
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	})
}

// descriptors returns how many the process may have; Go has raised the limit as far as it
// may.
func descriptors() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt32
	}
	return min(limit.Cur, math.MaxInt32)
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// connOf returns what the listener accepted, of what the server has; nil for another's.
func connOf(outer net.Conn) *conn {
	if secure, ok := outer.(*tls.Conn); ok {
		outer = secure.NetConn()
	}
	c, _ := outer.(*conn)
	return c
}

// fromContext returns the connection of a request, nil if no guard has accepted it.
func fromContext(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// Answering begins an answer that is large and may be read slowly; done is to be called at
// its end. Too many of them end one that has been read for long, maybe this one.
func Answering(ctx context.Context) (done func()) {
	c := fromContext(ctx)
	if c == nil {
		return func() {}
	}
	c.table.answering(c)
	return func() { c.table.answered(c) }
}
