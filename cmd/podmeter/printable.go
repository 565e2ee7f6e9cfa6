// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"strings"
	"unicode"
)

// printable makes what a terminal would take for a command visible: a name of an
// interface may hold escape sequences. Lines and tabs stay.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsGraphic(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// printableWriter passes text on that is printable. Each write has to be of whole
// characters.
type printableWriter struct{ to io.Writer }

// Write implements [io.Writer].
func (w printableWriter) Write(text []byte) (int, error) {
	if _, err := io.WriteString(w.to, printable(string(text))); err != nil {
		return 0, err
	}
	return len(text), nil
}
