// SPDX-License-Identifier: Apache-2.0

// Package ratelog bounds how often log lines are written that others can cause: a peer, a
// tenant, a pod, a file, a receiver. Every logger of podmeter is limited by it, so that no
// line can be forgotten.
//
// A [Handler] lets some records of each message through in a minute, counts the others, and
// writes the count with the last of them at the end of that minute. [Outage] is for what
// fails again at each try: it logs the first failure and the end, with a count.
//
// All of it may be used from any goroutine. What was counted and not written yet is written
// by [Flush], which a process calls before it ends.
package ratelog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// What others may write to the log.
const (
	// MaxLines is the most records of one message and level within Window: what a reader
	// wants to see of a fault that goes on. The others are counted.
	MaxLines, Window = 10, time.Minute
	// MaxDebugLines is the same of the level debug, which is turned on for some time to see
	// each pod and interface: ten a second.
	MaxDebugLines = 600
	// maxKinds is the most messages that are distinguished: podmeter has some 150. What is
	// beyond, such as texts that a library makes of what it was sent, shares one kind for
	// each level.
	maxKinds = 256
)

// Handler limits the records that it hands to another one, by message and level. With
// other attributes it is the same limiter.
type Handler struct {
	slog.Handler
	kinds *kinds
}

// New returns a limiter before a handler.
func New(inner slog.Handler) *Handler {
	return &Handler{Handler: inner, kinds: &kinds{kinds: make(map[name]*kind)}}
}

// Limit returns a logger that is limited: the given one if it is already.
func Limit(log *slog.Logger) *slog.Logger {
	if _, limited := log.Handler().(*Handler); limited {
		return log
	}
	return slog.New(New(log.Handler()))
}

// Apart returns a logger that writes to the same log with a limiter of its own. It is for
// libraries that have variable texts in their messages, which take no kinds of others then.
func Apart(log *slog.Logger) *slog.Logger {
	inner := log.Handler()
	if limited, ok := inner.(*Handler); ok {
		inner = limited.Handler
	}
	return slog.New(New(inner))
}

// Flush writes what a limited logger has counted and not written; of any other nothing.
func Flush(log *slog.Logger) {
	if limited, ok := log.Handler().(*Handler); ok {
		limited.kinds.flush()
	}
}

// Handle implements [slog.Handler].
func (h *Handler) Handle(ctx context.Context, record slog.Record) error {
	if !h.kinds.admit(&record, h.Handler) {
		return nil
	}
	return h.Handler.Handle(ctx, record)
}

// WithAttrs implements [slog.Handler].
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{Handler: h.Handler.WithAttrs(attrs), kinds: h.kinds}
}

// WithGroup implements [slog.Handler].
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{Handler: h.Handler.WithGroup(name), kinds: h.kinds}
}

// name is what distinguishes kinds.
type name struct {
	message string
	level   slog.Level
}

// most is how many records of a kind are written within a window.
func (n name) most() int {
	if n.level < slog.LevelInfo {
		return MaxDebugLines
	}
	return MaxLines
}

// coarse returns one of the four levels.
func coarse(level slog.Level) slog.Level {
	for _, least := range []slog.Level{slog.LevelError, slog.LevelWarn, slog.LevelInfo} {
		if level >= least {
			return least
		}
	}
	return slog.LevelDebug
}

// kinds counts records by kind.
type kinds struct {
	mu    sync.Mutex
	kinds map[name]*kind
}

// kind is the records of one name in the current window.
type kind struct {
	written, leftOut int
	last             slog.Record  // of those left out
	handler          slog.Handler // of the last
	timer            *time.Timer
}

// admit reports whether a record is to be written, and counts it.
func (k *kinds) admit(record *slog.Record, handler slog.Handler) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := name{record.Message, record.Level}
	if k.kinds[n] == nil && len(k.kinds) >= maxKinds {
		n = name{level: coarse(n.level)}
	}
	this := k.kinds[n]
	if this == nil {
		this = &kind{timer: time.AfterFunc(Window, func() { k.end(n) })}
		k.kinds[n] = this
	}
	if this.written < n.most() {
		this.written++
		return true
	}
	this.leftOut++
	this.last, this.handler = record.Clone(), handler
	return false
}

// end ends the window of a kind.
func (k *kinds) end(n name) {
	k.mu.Lock()
	this := k.kinds[n]
	delete(k.kinds, n)
	k.mu.Unlock()
	if this == nil {
		return
	}
	this.timer.Stop()
	if this.leftOut == 0 {
		return
	}
	record := slog.NewRecord(time.Now(), this.last.Level, this.last.Message+" (more of these)", 0)
	record.Add("left-out", this.leftOut, "within", Window)
	var last []any
	this.last.Attrs(func(a slog.Attr) bool {
		last = append(last, a)
		return true
	})
	record.AddAttrs(slog.Group("last", last...))
	_ = this.handler.Handle(context.Background(), record) // as [slog.Logger] does
}

// flush ends the windows of all kinds.
func (k *kinds) flush() {
	k.mu.Lock()
	names := make([]name, 0, len(k.kinds))
	for n := range k.kinds {
		names = append(names, n)
	}
	k.mu.Unlock()
	for _, n := range names {
		k.end(n)
	}
}
