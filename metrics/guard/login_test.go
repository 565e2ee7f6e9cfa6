// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// cost is the CPU time of a comparison.
const cost = 60 * time.Millisecond

// door is authentication that takes its time, as bcrypt does, and remembers what it has
// compared, and a guard before it.
type door struct {
	guard   *Guard
	handler http.Handler

	mu       sync.Mutex
	password string
	compared int
	seen     map[string]bool
}

func newDoor(t *testing.T) *door {
	g, err := New(Options{Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler), Logins: true})
	if err != nil {
		t.Fatal(err)
	}
	d := &door{guard: g, password: "secret", seen: make(map[string]bool)}
	inner := authenticated(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	d.handler = g.front(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.right(r) {
			inner.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	return d
}

func (d *door) right(r *http.Request) bool {
	_, password, ok := r.BasicAuth()
	if !ok {
		return false
	}
	d.mu.Lock()
	known := d.seen[password]
	d.seen[password] = true
	if !known {
		d.compared++
	}
	right := password == d.password
	d.mu.Unlock()
	if !known {
		time.Sleep(cost)
	}
	return right
}

// ask returns the code of an answer to a source.
func (d *door) ask(source, password string) int {
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	if password != "" {
		r.SetBasicAuth("scraper", password)
	}
	c := &conn{Conn: from(source), table: newTable(defaultLimits(1024), d.guard.refuse), origin: originOf(from(source).remote)}
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), connKey{}, c)))
	return w.Code
}

// guess tries passwords without end, by as many connections, until the test's time is over.
func (d *door) guess(wait *sync.WaitGroup, source string, connections int, until time.Time) {
	for n := range connections {
		wait.Go(func() {
			for try := 0; time.Now().Before(until); try++ {
				if got := d.ask(source, fmt.Sprint(source, n, try)); got == http.StatusOK {
					panic("a wrong password was let in")
				}
				time.Sleep(500 * time.Millisecond)
			}
		})
	}
}

// Whoever guesses passwords gets no more than a share of a CPU for it, and does not keep a
// scraper out: neither one that was let in before, nor a new one, nor one of his own source.
func TestGuessingIsBounded(t *testing.T) {
	const minute = time.Minute
	for _, c := range []struct {
		name             string
		sources, streams int
		scraper          string
	}{
		{"one source", 1, 32, "192.0.2.9"},
		{"the scraper's own source", 1, 16, "198.51.100.0"},
		{"many sources", 40, 4, "192.0.2.9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDoor(t)
				var wait sync.WaitGroup
				until := time.Now().Add(minute)
				for n := range c.sources {
					d.guess(&wait, fmt.Sprintf("198.51.100.%d", n), c.streams, until)
				}
				time.Sleep(10 * time.Second) // well into it
				for scrape := range 10 {
					began := time.Now()
					if got := d.ask(c.scraper, "secret"); got != http.StatusOK {
						t.Errorf("scrape %d: got %d, want 200", scrape, got)
					}
					if took := time.Since(began); scrape > 0 && took > 2*cost { // of synctest's clock, which is exact
						t.Errorf("scrape %d: got it after %v, want no wait for a password that was right before", scrape, took)
					}
					time.Sleep(time.Second)
				}
				wait.Wait()
				most := (loginBurst.Seconds()+(minute+loginWait).Seconds()*loginShare)/cost.Seconds() + 2
				if d.compared > int(most) || d.compared < 100 {
					t.Errorf("passwords compared in a minute: got %d, want at most %v, and not none", d.compared, most)
				}
				refused := testutil.ToFloat64(d.guard.refused.WithLabelValues(string(reasonLogin)))
				if many := c.sources*c.streams > maxLogins; many != (refused > 0) {
					t.Errorf("refused logins: got %v, want some: %v", refused, many)
				}
			})
		})
	}
}

func TestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		for _, c := range []struct {
			name, password string
			code           int
		}{
			{"none", "", http.StatusUnauthorized}, {"wrong", "guess", http.StatusUnauthorized}, {"right", "secret", http.StatusOK},
			{"right again", "secret", http.StatusOK}, {"long", strings.Repeat("x", credentialBytes), http.StatusUnauthorized},
		} {
			if got := d.ask("192.0.2.1", c.password); got != c.code {
				t.Errorf("%s: got %d, want %d", c.name, got, c.code)
			}
		}
		if d.compared != 2 {
			t.Errorf("got %d compared, want none of the long one", d.compared)
		}
		d.password, d.seen = "changed", make(map[string]bool)
		if got := d.ask("192.0.2.1", "secret"); got != http.StatusUnauthorized || len(d.guard.logins.known) != 0 {
			t.Errorf("after a change: got %d and %d known, want 401 and none", got, len(d.guard.logins.known))
		}
	})
}

// What is remembered of logins is bounded.
func TestLoginsForget(t *testing.T) {
	l := newLogins()
	for n := range 2 * maxFailures {
		a := l.wait(t.Context(), originOf(from(fmt.Sprintf("10.0.%d.%d", n/250, n%250)).remote).network)
		a.begun = time.Now() // costs nothing
		if n%2 == 0 {
			l.pass(a, [32]byte{byte(n), byte(n >> 8)})
		}
		l.end(a, n%2 == 1)
	}
	if len(l.known) > maxKnown || len(l.failures) > maxFailures || len(l.waiting) != 0 || l.running != nil {
		t.Errorf("got %d known, %d failures, %d waiting, want bounds held", len(l.known), len(l.failures), len(l.waiting))
	}
}
