// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// output is a log that can be read while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func lines(o *output) int { return strings.Count(o.String(), "\n") }

// Of what a peer can cause over and over the log has some lines, and then a number.
func TestLogIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		l := newLimiter(slog.NewTextHandler(&out, nil))
		server := log.New(errorLog{slog.New(l)}, "", 0)
		for n := range 18_379 {
			server.Printf("http: TLS handshake error from 192.0.2.1:%d: EOF", n)
		}
		slog.New(l).With("a", 1).Error("something else")
		if got := lines(&out); got != maxLines+1 {
			t.Errorf("at once: got %d lines, want %d and one of another kind", got, maxLines)
		}
		time.Sleep(logWindow)
		synctest.Wait()
		if want := "level=WARN msg=\"HTTP server (more of these)\" left-out=18369 within=1m0s last.error=\"http: TLS handshake error from 192.0.2.1:18378: EOF\""; lines(&out) != maxLines+2 || !strings.Contains(out.String(), want) {
			t.Errorf("after a minute: got %s, want one more line with %s", &out, want)
		}
		server.Print("again")
		if got := lines(&out); got != maxLines+3 {
			t.Errorf("in the next minute: got %d lines, want %d", got, maxLines+3)
		}
		time.Sleep(2 * logWindow)
		synctest.Wait()
		if got := lines(&out); got != maxLines+3 {
			t.Errorf("when nothing was left out: got %d lines, want %d", got, maxLines+3)
		}
	})
}

// What was counted is written at the end.
func TestLogIsFlushed(t *testing.T) {
	var out output
	l := newLimiter(slog.NewTextHandler(&out, nil))
	for range maxLines + 7 {
		slog.New(l).Info("line")
	}
	l.flush()
	l.flush()
	if lines(&out) != maxLines+1 || !strings.Contains(out.String(), "left-out=7") {
		t.Errorf("got %s, want 7 left out, once", &out)
	}
}

// Messages that peers make up do not take memory without bound.
func TestKindsAreBounded(t *testing.T) {
	l := newLimiter(slog.DiscardHandler)
	for n := range 10 * maxKinds {
		slog.New(l).Info(fmt.Sprint("line ", n))
	}
	if got := len(l.kinds.kinds); got > maxKinds+1 {
		t.Errorf("got %d kinds, want at most %d", got, maxKinds+1)
	}
	l.flush()
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb\x1b[31m\x00": "a b [31m", strings.Repeat("é", 200): strings.Repeat("é", 128) + "…", "\xff": "\ufffd", "": "",
	} {
		if got := printable(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
