// SPDX-License-Identifier: Apache-2.0

package table

import (
	"strings"
	"testing"
)

func TestLayoutShortensTheWidestFlexibleColumn(t *testing.T) {
	columns := []Column{{Head: "A"}, {Head: "N", Right: true}, {Head: "B", Flexible: true}, {Head: "C", Flexible: true}}
	rows := [][]string{{"a", "12", "a text of some length", "Reykjavík, IS"}}
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, "a  12  a text of some length  Reykjavík, IS"},
		{40, "a  12  a text of some le…  Reykjavík, IS"},
		{30, "a  12  a text of…  Reykjavík,…"},
		{10, "a  12  a …"},
	} {
		if got := Layout(columns, rows, c.width)[1]; got != c.want {
			t.Errorf("width %d: got %q, want %q", c.width, got, c.want)
		}
	}
}

// A name that holds line breaks or escapes makes neither lines nor commands.
func TestLayoutOfVileNames(t *testing.T) {
	columns := []Column{{Head: "A"}, {Head: "B", Flexible: true}}
	rows := [][]string{{"a\nforged  line", "b\x1b[2J\t\u202e<b>\xff"}}
	got := strings.Join(Layout(columns, rows, 0), "\n")
	if want := "A               B\na\ufffdforged  line  b\ufffd[2J\ufffdb\ufffd"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
