// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// logins lets one unknown credential be checked at a time, so often that they take no more
// than a share of a CPU. Of those that wait, one from the network with the fewest failed
// ones is next. Whoever guesses therefore waits behind everybody else, and a credential
// that was right once does not wait at all.
//
// The authentication behind it remembers what it has checked, so what is known here is
// compared there without cost, and is checked there again after the file has changed.
type logins struct {
	mu      sync.Mutex
	waiting []*attempt
	running *attempt
	share   *Share
	timer   *time.Timer // set while the share holds the next one back
	// failures counts by network.
	failures map[netip.Prefix]int
	known    map[[sha256.Size]byte]struct{}
}

// attempt is a login whose outcome is not known.
type attempt struct {
	network netip.Prefix
	turn    chan struct{} // closed when it is its turn, or when it was given up
	begun   time.Time     // zero if it was given up
	passed  bool
}

func newLogins() *logins {
	return &logins{
		share: NewShare(loginShare, loginBurst), failures: make(map[netip.Prefix]int),
		known: make(map[[sha256.Size]byte]struct{}),
	}
}

// attemptKey is the key of an attempt in a request's context.
type attemptKey struct{}

// authenticated is the innermost handler: whoever gets here is let in.
func authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pass, ok := r.Context().Value(attemptKey{}).(func()); ok {
			pass()
		}
		next.ServeHTTP(w, r)
	})
}

// authenticate lets a request through to the authentication when it may cost something.
func (g *Guard) authenticate(w *pacedWriter, r *http.Request, c *conn, next http.Handler) {
	credential := r.Header.Get("Authorization")
	_, _, basic := r.BasicAuth()
	if g.logins == nil || !basic {
		next.ServeHTTP(w, r)
		return
	}
	if len(credential) > credentialBytes {
		g.reject(w, c, reasonLogin, http.StatusUnauthorized, "Name and password are longer than any that are expected.")
		return
	}
	sum := sha256.Sum256([]byte(credential))
	if g.logins.isKnown(sum) {
		next.ServeHTTP(w, r)
		if w.code == http.StatusUnauthorized { // it is no longer right
			g.logins.forget(sum)
		}
		return
	}
	a := g.logins.wait(r.Context(), originOfConn(c).network)
	if a == nil {
		g.refuse(reasonLogin, originOfConn(c))
		w.Header().Set("Retry-After", strconv.Itoa(int(loginWait.Seconds())))
		http.Error(w, "Too many logins have failed.", http.StatusTooManyRequests)
		return
	}
	defer func() { g.logins.end(a, w.code == http.StatusUnauthorized) }()
	pass := func() { g.logins.pass(a, sum) }
	next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), attemptKey{}, pass)))
}

func (l *logins) isKnown(sum [sha256.Size]byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.known[sum]
	return ok
}

func (l *logins) forget(sum [sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, sum)
}

// wait returns an attempt when it is its turn, nil if that does not come in time.
func (l *logins) wait(ctx context.Context, network netip.Prefix) *attempt {
	a := &attempt{network: network, turn: make(chan struct{})}
	l.mu.Lock()
	l.waiting = append(l.waiting, a)
	if len(l.waiting) > maxLogins {
		l.giveUp(l.worst())
	}
	l.start()
	l.mu.Unlock()
	timeout := time.NewTimer(loginWait)
	defer timeout.Stop()
	select {
	case <-a.turn:
	case <-timeout.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.begun.IsZero() {
		l.waiting = slices.DeleteFunc(l.waiting, func(w *attempt) bool { return w == a })
		return nil
	}
	return a
}

// start gives the next one its turn if none is running and the share allows it. Its caller
// holds the lock.
func (l *logins) start() {
	if l.running != nil || l.timer != nil || len(l.waiting) == 0 {
		return
	}
	now := time.Now()
	if pause := l.share.Wait(now); pause > 0 {
		l.timer = time.AfterFunc(pause, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.timer = nil
			l.start()
		})
		return
	}
	best := slices.MinFunc(l.waiting, func(a, b *attempt) int { return l.failures[a.network] - l.failures[b.network] })
	l.waiting = slices.DeleteFunc(l.waiting, func(a *attempt) bool { return a == best })
	l.running, best.begun = best, now
	close(best.turn)
}

// worst returns the attempt that waits from the network with the most failed ones, the last
// of equals.
func (l *logins) worst() *attempt {
	worst := l.waiting[0]
	for _, a := range l.waiting {
		if l.failures[a.network] >= l.failures[worst.network] {
			worst = a
		}
	}
	return worst
}

func (l *logins) giveUp(a *attempt) {
	l.waiting = slices.DeleteFunc(l.waiting, func(w *attempt) bool { return w == a })
	close(a.turn)
}

// pass notes that an attempt was let in, whose answer may take long.
func (l *logins) pass(a *attempt, sum [sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) >= maxKnown {
		clear(l.known)
	}
	l.known[sum] = struct{}{}
	a.passed = true
	l.finish(a)
}

// end notes that an attempt is over, and whether its credential was wrong.
func (l *logins) end(a *attempt, wrong bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.passed {
		return
	}
	if wrong {
		if len(l.failures) >= maxFailures {
			clear(l.failures)
		}
		l.failures[a.network]++
	}
	l.finish(a)
}

func (l *logins) finish(a *attempt) {
	now := time.Now()
	l.share.Spend(now, now.Sub(a.begun))
	l.running = nil
	l.start()
}
