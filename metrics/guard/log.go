// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
)

// limiter is a [slog.Handler] that lets maxLines records of one message through within
// logWindow, and then says how many more there were. With other attributes it is the same
// limiter.
type limiter struct {
	slog.Handler
	kinds *kinds
}

// kinds counts records by message.
type kinds struct {
	mu    sync.Mutex
	kinds map[string]*kind
}

// kind is the records of one message in the current window.
type kind struct {
	written, more int
	last          slog.Record
	handler       slog.Handler
	timer         *time.Timer
}

func newLimiter(inner slog.Handler) *limiter {
	return &limiter{Handler: inner, kinds: &kinds{kinds: make(map[string]*kind)}}
}

// Handle implements [slog.Handler].
func (l *limiter) Handle(ctx context.Context, record slog.Record) error {
	if !l.kinds.admit(record, l.Handler) {
		return nil
	}
	return l.Handler.Handle(ctx, record)
}

// WithAttrs implements [slog.Handler].
func (l *limiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limiter{Handler: l.Handler.WithAttrs(attrs), kinds: l.kinds}
}

// WithGroup implements [slog.Handler].
func (l *limiter) WithGroup(name string) slog.Handler {
	return &limiter{Handler: l.Handler.WithGroup(name), kinds: l.kinds}
}

// flush writes what was counted.
func (l *limiter) flush() {
	l.kinds.mu.Lock()
	names := make([]string, 0, len(l.kinds.kinds))
	for name := range l.kinds.kinds {
		names = append(names, name)
	}
	l.kinds.mu.Unlock()
	for _, name := range names {
		l.kinds.end(name)
	}
}

// admit reports whether a record is to be written, and counts it.
func (k *kinds) admit(record slog.Record, handler slog.Handler) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := record.Message
	if k.kinds[name] == nil && len(k.kinds) >= maxKinds {
		name = ""
	}
	this := k.kinds[name]
	if this == nil {
		this = &kind{handler: handler}
		this.timer = time.AfterFunc(logWindow, func() { k.end(name) })
		k.kinds[name] = this
	}
	if this.written < maxLines {
		this.written++
		return true
	}
	this.more++
	this.last = record
	return false
}

// end ends the window of a kind.
func (k *kinds) end(name string) {
	k.mu.Lock()
	this := k.kinds[name]
	delete(k.kinds, name)
	k.mu.Unlock()
	if this == nil {
		return
	}
	this.timer.Stop()
	if this.more == 0 {
		return
	}
	record := slog.NewRecord(time.Now(), this.last.Level, this.last.Message+" (more of these)", 0)
	record.Add("left-out", this.more, "within", logWindow)
	var last []any
	this.last.Attrs(func(a slog.Attr) bool {
		last = append(last, a)
		return true
	})
	record.AddAttrs(slog.Group("last", last...))
	this.handler.Handle(context.Background(), record)
}

// errorLog takes the lines of an [http.Server], whose text peers choose in part.
type errorLog struct{ log *slog.Logger }

// Write implements [io.Writer].
func (e errorLog) Write(line []byte) (int, error) {
	e.log.Warn("HTTP server", "error", printable(string(line)))
	return len(line), nil
}

// printable returns a peer's text as one bounded line.
func printable(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "…"
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text))
}
