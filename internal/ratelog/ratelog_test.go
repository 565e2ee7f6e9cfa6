// SPDX-License-Identifier: Apache-2.0

package ratelog

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podmeter/podmeter/internal/servertest"
)

// newLog returns a limited log of all levels.
func newLog() (*servertest.Log, *slog.Logger) {
	out := new(servertest.Log)
	return out, slog.New(New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

// Of what others cause over and over the log has some lines, and then a number, also if
// nothing follows.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, log := newLog()
		var flood sync.WaitGroup
		for range 4 {
			flood.Go(func() {
				for n := range 5000 {
					log.With("port", n).Warn("refused", "peer", "192.0.2.1")
				}
			})
		}
		flood.Wait()
		log.With("a", 1).Error("something else")
		if got := out.Lines(); got != MaxLines+1 {
			t.Errorf("at once: got %d lines, want %d and one of another kind", got, MaxLines)
		}
		time.Sleep(Window)
		synctest.Wait()
		const want = `level=WARN msg="refused (more of these)" port=4999 left-out=19990 within=1m0s last.peer=192.0.2.1`
		if out.Lines() != MaxLines+2 || !strings.Contains(out.String(), want) {
			t.Errorf("after a minute: got %s, want one more line with %s", out, want)
		}
		log.Warn("refused")
		if got := out.Lines(); got != MaxLines+3 {
			t.Errorf("in the next minute: got %d lines, want %d", got, MaxLines+3)
		}
		time.Sleep(2 * Window)
		synctest.Wait()
		if got := out.Lines(); got != MaxLines+3 {
			t.Errorf("when nothing was left out: got %d lines, want %d", got, MaxLines+3)
		}
	})
}

// Debugging sees more, within a bound of its own.
func TestFloodOfDebugging(t *testing.T) {
	out, log := newLog()
	for range 2 * MaxDebugLines {
		log.Debug("bound")
	}
	log.Info("bound")
	if got := out.Lines(); got != MaxDebugLines+1 {
		t.Errorf("got %d lines, want %d and one of another level", got, MaxDebugLines)
	}
}

// What was counted is written at the end, once.
func TestFlush(t *testing.T) {
	out, log := newLog()
	for range MaxLines + 7 {
		log.Info("line")
	}
	Flush(log)
	Flush(log)
	if out.Lines() != MaxLines+1 || !strings.Contains(out.String(), "left-out=7") {
		t.Errorf("got %s, want 7 left out, once", out)
	}
}

// Messages that others make up take neither memory nor a disk without bound, and a library's
// none of the places of the others.
func TestKindsAreBounded(t *testing.T) {
	out, log := newLog()
	library := Apart(log)
	for n := range 10 * maxKinds {
		library.Info(fmt.Sprint("line ", n))
	}
	if got := len(library.Handler().(*Handler).kinds.kinds); got > maxKinds+1 {
		t.Errorf("got %d kinds, want at most %d", got, maxKinds+1)
	}
	if got := out.Lines(); got != maxKinds+MaxLines {
		t.Errorf("got %d lines, want one of each of %d kinds and %d of all others", got, maxKinds, MaxLines)
	}
	for range MaxLines {
		log.Info("of podmeter's own")
	}
	if got := strings.Count(out.String(), "of podmeter's own"); got != MaxLines {
		t.Errorf("got %d lines of another limiter, want all %d", got, MaxLines)
	}
}

// A logger is limited once.
func TestLimit(t *testing.T) {
	out, log := newLog()
	if again := Limit(log.With("a", 1)); again.Handler().(*Handler).kinds != log.Handler().(*Handler).kinds {
		t.Error("got a second limiter before the first")
	}
	once := Limit(slog.New(slog.NewTextHandler(out, nil)))
	for range 2 * MaxLines {
		once.Info("line")
	}
	if got := out.Lines(); got != MaxLines {
		t.Errorf("got %d lines, want %d", got, MaxLines)
	}
}

// An outage is a line at its beginning and one at its end.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, log := newLog()
		o := &Outage{Log: log, Level: slog.LevelError, Wrong: "server is away", Over: "server answers again"}
		o.Set(nil, "server", "a")
		for n := range 1000 {
			o.Set(fmt.Errorf("no route %d", n), "server", "a")
			time.Sleep(time.Second)
		}
		if !o.Failing() {
			t.Error("got that it works, want that it fails")
		}
		for range 2 {
			o.Set(nil, "server", "a")
		}
		o.Set(errors.New("again"))
		for _, want := range []string{
			`level=ERROR msg="server is away" server=a error="no route 0"`,
			`level=INFO msg="server answers again" server=a failures=1000 for=16m40s`,
			`level=ERROR msg="server is away" error=again`,
		} {
			if got := strings.Count(out.String(), want+"\n"); got != 1 {
				t.Errorf("got %d lines %s, want one:\n%s", got, want, out)
			}
		}
		if got := out.Lines(); got != 3 {
			t.Errorf("got %d lines, want 3:\n%s", got, out)
		}
	})
}
