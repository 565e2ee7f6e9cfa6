// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// answerWithin bounds one exchange.
const answerWithin = 3 * time.Second

// exchange is a request that is sent again and again, and its answer.
type exchange struct {
	// run makes one exchange: fetch, query or echo.
	run      func(context.Context, *exchange) error
	protocol string // what run speaks: TCP, UDP or ICMP
	from     *namespace
	// source is the address to send from; invalid for whichever fits.
	source netip.Addr
	to     netip.AddrPort
	every  time.Duration
	// request and response are payloads in bytes.
	request, response int
}

// over is the protocol with the version of IP, such as "TCP over IPv6".
func (e *exchange) over() string {
	if e.to.Addr().Is6() {
		return e.protocol + " over IPv6"
	}
	return e.protocol + " over IPv4"
}

// tally is how often exchanges worked, by protocol and version of IP. It is safe
// for concurrent use.
type tally struct {
	mu   sync.Mutex
	done map[string]int
	last map[string]error
}

func newTally() *tally { return &tally{done: make(map[string]int), last: make(map[string]error)} }

func (t *tally) add(e *exchange, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.last[e.over()] = fmt.Errorf("%s from %s to %s: %w", e.protocol, e.from.name, e.to, err)
		t.done[e.over()] += 0
		return
	}
	t.done[e.over()]++
}

// err is nil if every protocol that was tried worked at least once.
func (t *tally) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for over, n := range t.done {
		if n == 0 {
			errs = append(errs, fmt.Errorf("%s never worked: %w", over, t.last[over]))
		}
	}
	return errors.Join(errs...)
}

// String is what worked how often, such as "90 × TCP over IPv4".
func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var parts []string
	for over, n := range t.done {
		parts = append(parts, fmt.Sprintf("%s %d", over, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// traffic are servers and the exchanges with them, until it is stopped.
type traffic struct {
	tally   *tally
	ctx     context.Context // of everything that runs
	cancel  context.CancelFunc
	clients sync.WaitGroup
	servers sync.WaitGroup
	closers []io.Closer // of servers
}

func newTraffic(t *tally) *traffic {
	ctx, cancel := context.WithCancel(context.Background())
	return &traffic{tally: t, ctx: ctx, cancel: cancel}
}

// stop ends all exchanges, then the servers, and waits for them.
func (t *traffic) stop() error {
	t.cancel()
	t.clients.Wait()
	var errs []error
	for _, c := range t.closers {
		errs = append(errs, c.Close())
	}
	t.closers = nil
	t.servers.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop traffic: %w", err)
	}
	return nil
}

// start begins exchanges; each makes its first one at once.
func (t *traffic) start(exchanges ...*exchange) {
	for _, e := range exchanges {
		t.clients.Go(func() { t.repeat(e) })
	}
}

func (t *traffic) repeat(e *exchange) {
	ticker := time.NewTicker(e.every)
	defer ticker.Stop()
	for {
		ctx, cancel := context.WithTimeout(t.ctx, answerWithin)
		err := e.run(ctx, e)
		cancel()
		if t.ctx.Err() != nil {
			return // it was interrupted
		}
		t.tally.add(e, err)
		select {
		case <-t.ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// serve runs a server until stop closes it.
func (t *traffic) serve(c io.Closer, run func()) {
	t.closers = append(t.closers, c)
	t.servers.Go(run)
}
