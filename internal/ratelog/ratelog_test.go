// SPDX-License-Identifier: Apache-2.0

package ratelog

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// Of a flood of lines a burst is written; the line after a pause counts the others.
func TestLimiter(t *testing.T) {
	var out bytes.Buffer
	l := NewRate(slog.New(slog.NewTextHandler(&out, nil)), 3, time.Minute)
	now := time.Now()
	l.now = func() time.Time { return now }
	var flood sync.WaitGroup
	for range 4 {
		flood.Go(func() {
			for range 25 {
				l.Warn("refused", "peer", "192.0.2.1")
			}
		})
	}
	flood.Wait()
	if got := strings.Count(out.String(), "level=WARN msg=refused peer=192.0.2.1\n"); got != 3 {
		t.Errorf("got %d lines of 100, want 3:\n%s", got, &out)
	}
	for _, want := range []string{"level=INFO msg=over left-out=97\n", "level=INFO msg=over\n"} {
		now = now.Add(time.Minute)
		out.Reset()
		l.Info("over")
		l.Info("over")
		if !strings.HasSuffix(out.String(), want) {
			t.Errorf("after a pause: got %q, want it to end in %q", &out, want)
		}
		l.leftOut.Store(0)
	}
}
