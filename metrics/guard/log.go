// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"log/slog"
	"strings"
	"unicode"

	"github.com/podmeter/podmeter/internal/secret"
)

// errorLog takes the lines of an [http.Server], whose text peers choose in part, and a web
// configuration file that has turned bad another.
type errorLog struct{ log *slog.Logger }

// Write implements [io.Writer].
func (e errorLog) Write(line []byte) (int, error) {
	e.log.Warn("HTTP server", "error", printable(secret.Quoted(string(line))))
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
