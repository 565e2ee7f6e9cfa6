// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb\x1b[31m\x00": "a b [31m", strings.Repeat("é", 200): strings.Repeat("é", 128) + "…", "\xff": "\ufffd", "": "",
	} {
		if got := printable(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
