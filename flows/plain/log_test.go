// SPDX-License-Identifier: Apache-2.0

package plain

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

// Whatever a value holds, a line stays one, of a bounded length, and does nothing to a
// terminal.
func TestLogLines(t *testing.T) {
	vile := "a\nlevel=ERROR msg=forged\x1b[2J\u009b1m\u202e\xff" + strings.Repeat("b", 1<<20)
	many := slices.Repeat([]string{"a name"}, 100_000)
	options := &slog.HandlerOptions{ReplaceAttr: Attr}
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, options) },
		"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, options) },
	} {
		var out bytes.Buffer
		log := slog.New(handler(&out)).With("with", vile)
		log.Warn(vile, "name", vile, "error", errors.New(vile), "list", []string{vile, "b"}, "many", many, "other", struct{ A []string }{many}, slog.Group("group", "in", vile))
		line, rest, _ := strings.Cut(out.String(), "\n")
		if rest != "" || len(line) > 9*LogLimit {
			t.Errorf("%s: got %d bytes and then %.100q, want one line of a few", name, len(line), rest)
		}
		if strings.ContainsFunc(line, func(r rune) bool { return !inLine(r) && r != '<' && r != '>' }) {
			t.Errorf("%s: got %.300q", name, line)
		}
		if !strings.Contains(line, "level=WARN") && !strings.Contains(line, `"level":"WARN"`) {
			t.Errorf("%s: got %.100q without its level", name, line)
		}
	}
}

func TestLogValuesThatArePlain(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return Attr(groups, a)
	}}))
	log.Info("read", "error", errors.New("a: <nil>\nb"), "count", 7, "list", []string{"a", "b"}, "none", nil)
	if got, want := out.String(), `level=INFO msg=read error="a: <nil>\nb" count=7 list="[a b]" none=<nil>`+"\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
