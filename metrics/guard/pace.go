// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"net/http"
	"time"

	"golang.org/x/time/rate"
)

// pacedWriter gives the peer a time for each part of an answer. A reader that is too slow
// ends its connection, or by HTTP/2 its stream.
type pacedWriter struct {
	http.ResponseWriter
	conn       *conn // nil in tests of handlers
	controller *http.ResponseController
	slow       func(reason, origin)

	code   int
	failed bool
	// until is when the whole answer has to be written; zero before its first part.
	until time.Time
}

// WriteHeader implements [http.ResponseWriter].
func (w *pacedWriter) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements [http.ResponseWriter].
func (w *pacedWriter) Write(p []byte) (written int, err error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	for {
		part := p[:min(len(p), paceBytes)]
		n, err := w.writePart(part)
		written += n
		if p = p[n:]; err != nil || len(p) == 0 {
			return written, err
		}
	}
}

func (w *pacedWriter) writePart(part []byte) (int, error) {
	now := time.Now()
	if w.until.IsZero() {
		w.until = now.Add(writeTimeout)
	}
	deadline := now.Add(paceTimeout)
	if w.until.Before(deadline) {
		deadline = w.until
	}
	w.controller.SetWriteDeadline(deadline) // a recorder in a test has none
	n, err := w.ResponseWriter.Write(part)
	if err != nil && !w.failed && !time.Now().Before(deadline) {
		w.slow(reasonSlowReader, originOfConn(w.conn))
	}
	w.failed = w.failed || err != nil
	return n, err
}

// Unwrap is for [http.ResponseController].
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Share lets work take a share of one CPU's time in the long run. Its user holds a lock.
type Share struct {
	limiter *rate.Limiter
	burst   int
	next    time.Time
}

// NewShare returns one that allows the burst of work before it holds anything back.
func NewShare(share float64, burst time.Duration) *Share {
	micros := int(burst.Microseconds())
	return &Share{limiter: rate.NewLimiter(rate.Limit(share*1e6), micros), burst: micros}
}

// Wait returns how long the next piece of work has to wait; 0 or less if it need not.
func (s *Share) Wait(now time.Time) time.Duration { return s.next.Sub(now) }

// Spend takes down that a piece of work has ended and how long it took.
func (s *Share) Spend(now time.Time, took time.Duration) {
	cost := min(max(int(took.Microseconds()), 0), s.burst)
	s.next = now.Add(s.limiter.ReserveN(now, cost).DelayFrom(now))
}
