// SPDX-License-Identifier: Apache-2.0

package table

import "testing"

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
