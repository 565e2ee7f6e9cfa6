// SPDX-License-Identifier: Apache-2.0

// Package page is what an agent shows of its node to a browser: pods, edges and places
// with their rates, and whether every byte is accounted for.
//
// A [Page] is a handler for / and everything below /page/. Its files are in the binary,
// plain HTML, CSS and JavaScript, and it loads nothing from elsewhere. What moves comes
// from /page/state, which is made of the snapshot that a scrape is made of, so the
// numbers are those of /metrics. All readers share an answer for a second. Nothing is
// done while nobody asks, and what rates are made from is forgotten soon after. It is
// safe for concurrent use.
package page

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/podmeter/podmeter/flows/geo"
	"github.com/podmeter/podmeter/metrics"
)

const (
	// shared is how long an answer is given to all that ask.
	shared = time.Second
	// forgetAfter is how long nobody may have asked before rates begin anew.
	forgetAfter = 30 * time.Second
	// snapshotTimeout bounds the drain before an answer.
	snapshotTimeout = 5 * time.Second
)

// StatePath gives what moves, as JSON.
const StatePath = "/page/state"

// policy lets the page load its own files and ask its own server, and nothing else:
// no script that a name could bring along would run.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Options are what a [Page] needs.
type Options struct {
	// Source is the one of /metrics.
	Source metrics.Source
	// Version is that of the build.
	Version string
	// Node returns this node's name.
	Node func() string
	// Databases returns those of places; nil where there are none.
	Databases func() []geo.Info
	Logger    *slog.Logger
}

// Page is the handler.
type Page struct {
	options Options
	mux     *http.ServeMux
	started time.Time

	mu      sync.Mutex // held while an answer is made, so that there is one at a time
	history history
	answer  []byte
	made    time.Time
	forget  *time.Timer
}

// New returns a page.
func New(options Options) *Page {
	p := &Page{options: options, mux: http.NewServeMux(), started: time.Now()}
	for path, file := range files() {
		p.mux.Handle("GET "+path, file)
	}
	p.mux.HandleFunc("GET "+StatePath, p.serveState)
	return p
}

// ServeHTTP implements [http.Handler].
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	p.mux.ServeHTTP(w, r)
}

func (p *Page) serveState(w http.ResponseWriter, r *http.Request) {
	answer, err := p.state(r.Context())
	if r.Context().Err() != nil {
		return // nobody is there any more
	}
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		p.options.Logger.Error("make the page's state", "error", err)
		http.Error(w, "the counters could not be read; the agent's log says why", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(answer) // the client may be gone
}

// state returns an answer that is at most as old as it may be shared.
func (p *Page) state(ctx context.Context) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil { // it has waited for too long
		return nil, ctx.Err()
	}
	if p.answer != nil && time.Since(p.made) < shared {
		return p.answer, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), snapshotTimeout) // it is for others too
	defer cancel()
	snapshot, err := p.options.Source.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("take snapshot: %w", err)
	}
	p.remember(newTally(snapshot))
	answer, err := json.Marshal(p.describe(snapshot, p.options.Source.Agent()))
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	p.answer, p.made = answer, time.Now()
	return answer, nil
}

// remember takes a tally down, until nobody has asked for a while.
func (p *Page) remember(t *tally) {
	p.history.add(t)
	if p.forget != nil {
		p.forget.Reset(forgetAfter)
		return
	}
	p.forget = time.AfterFunc(forgetAfter, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.history, p.answer = history{}, nil
	})
}
