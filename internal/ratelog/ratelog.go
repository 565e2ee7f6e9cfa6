// SPDX-License-Identifier: Apache-2.0

// Package ratelog bounds how often a log line is written that others can cause: a peer, a
// tenant, a file, a receiver. Lines beyond the rate are counted, and the next one that is
// written says how many were left out.
//
// A [Limiter] is for lines of one kind. It may be used from any goroutine and holds no
// resource.
package ratelog

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// The default rate: what a reader wants to see of a fault that goes on.
const (
	DefaultBurst    = 10
	DefaultInterval = 10 * time.Second
)

// LeftOut is the attribute that counts the lines that were not written.
const LeftOut = "left-out"

// Limiter writes lines of a kind: a burst at once, then one each interval.
type Limiter struct {
	log     *slog.Logger
	rate    *rate.Limiter
	now     func() time.Time
	leftOut atomic.Uint64
}

// New returns a limiter of the default rate.
func New(log *slog.Logger) *Limiter { return NewRate(log, DefaultBurst, DefaultInterval) }

// NewRate returns a limiter that writes a burst of lines at once, and then one each interval.
func NewRate(log *slog.Logger, burst int, interval time.Duration) *Limiter {
	return &Limiter{log: log, rate: rate.NewLimiter(rate.Every(interval), burst), now: time.Now}
}

// Log writes a line as [slog.Logger.Log] does, or counts it.
func (l *Limiter) Log(level slog.Level, message string, attributes ...any) {
	if !l.rate.AllowN(l.now(), 1) {
		l.leftOut.Add(1)
		return
	}
	if n := l.leftOut.Swap(0); n > 0 {
		attributes = append(attributes[:len(attributes):len(attributes)], LeftOut, n)
	}
	l.log.Log(context.Background(), level, message, attributes...)
}

// Error writes an error, or counts it.
func (l *Limiter) Error(message string, attributes ...any) {
	l.Log(slog.LevelError, message, attributes...)
}

// Warn writes a warning, or counts it.
func (l *Limiter) Warn(message string, attributes ...any) {
	l.Log(slog.LevelWarn, message, attributes...)
}

// Info writes an information, or counts it.
func (l *Limiter) Info(message string, attributes ...any) {
	l.Log(slog.LevelInfo, message, attributes...)
}
