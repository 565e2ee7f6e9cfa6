// SPDX-License-Identifier: Apache-2.0

package plain

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	long := strings.Repeat("a", 1_000_000)
	for _, test := range []struct{ name, given, want string }{
		{"nothing", "", ""},
		{"a name", "web-5d4f7c.prod_1", "web-5d4f7c.prod_1"},
		{"as long as may be", long[:63], long[:63]},
		{"letters", "São Paulo 中", "São Paulo 中"},
		{"quotes and ampersands of companies", `JSC "AT&T" d'Oil`, `JSC "AT&T" d'Oil`},
		{"a replacement that was there", "a\ufffd", "a\ufffd"},
		{"line breaks and tabs", "a\nb\tc\r", "a\ufffdb\ufffdc\ufffd"},
		{"escapes of terminals", "\x1b[2J\u009b1m\x7f", "\ufffd[2J\ufffd1m\ufffd"},
		{"markup", "<img src=x>", "\ufffdimg src=x\ufffd"},
		{"direction of writing, and what has no width", "\u202ea\u2066b\u200bc\ufeff", "\ufffda\ufffdb\ufffdc\ufffd"},
		{"separators of lines", "a\u2028b\u2029", "a\ufffdb\ufffd"},
		{"not UTF-8", "a\xff\xc3b\xffc\ufffd\xff", "a\ufffdb\ufffdc\ufffd\ufffd"},
		{"too long", long[:64], long[:46] + "~ffe054fe7ae0cb6d"},
		{"longer", long, long[:46] + "~cdc76e5c9914fb92"},
		{"cut between characters", strings.Repeat("ü", 40), strings.Repeat("ü", 23) + "~bdf9bfe506709879"},
		{"too long once it is clean", strings.Repeat("\na", 16), strings.Repeat("\ufffda", 11) + "~55c063c4b70d07ab"},
		{"short once it is clean", strings.Repeat("\U000e0041", 20), "\ufffd~d891c17ab5d0dba7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Text(test.given, LabelLimit); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// Two strings of which only the middle differs, as none of it is kept.
func TestTextTellsLongStringsApart(t *testing.T) {
	a, b := strings.Repeat("a", 1000)+"1"+strings.Repeat("a", 1000), strings.Repeat("a", 1000)+"2"+strings.Repeat("a", 1000)
	if Text(a, NameLimit) == Text(b, NameLimit) {
		t.Errorf("got %q of both", Text(a, NameLimit))
	}
}

func TestLines(t *testing.T) {
	for given, want := range map[string]string{
		"a: 1\n\tb: <nil>":      "a: 1\n\tb: <nil>",
		"\x1b[2J\u202e\xff\r\n": "\ufffd[2J\ufffd\n",
	} {
		if got := Lines(given, LogLimit); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
	if got := len(Lines(strings.Repeat("\n", 1<<20), LogLimit)); got != LogLimit {
		t.Errorf("got %d bytes of a long text, want %d", got, LogLimit)
	}
}

func TestPlainAllocatesNothing(t *testing.T) {
	for _, s := range []string{"web-5d4f7c", strings.Repeat("a", NameLimit), "São Paulo", ""} {
		if got := testing.AllocsPerRun(100, func() { Text(s, NameLimit) }); got != 0 {
			t.Errorf("%q: got %v allocations, want 0", s, got)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"web", "a\n", "<b>", "\u202e", "\xff", strings.Repeat("ü", 40), strings.Repeat("\xff", 300)} {
		f.Add(s, s+"x", uint8(LabelLimit))
	}
	f.Fuzz(func(t *testing.T, a, b string, limit uint8) {
		most := max(int(limit), tail+1)
		for _, of := range []struct {
			name string
			text func(string, int) string
			may  alphabet
		}{{"Text", Text, inLine}, {"Lines", Lines, inLines}} {
			got, other := of.text(a, most), of.text(b, most)
			switch {
			case len(got) > most || !utf8.ValidString(got):
				t.Errorf("%s: got %q of %d bytes, want UTF-8 of at most %d", of.name, got, len(got), most)
			case strings.ContainsFunc(got, func(r rune) bool { return !of.may(r) }):
				t.Errorf("%s: got %q, which is not clean", of.name, got)
			case of.text(got, most) != got:
				t.Errorf("%s: got %q, then %q of it", of.name, got, of.text(got, most))
			case a != b && len(a) > most && len(b) > most && got == other:
				t.Errorf("%s: got %q of two strings", of.name, got)
			case fits(a, most, of.may) != (got == a):
				t.Errorf("%s: got %q of %q, fits: %v", of.name, got, a, fits(a, most, of.may))
			}
		}
	})
}

func BenchmarkText(b *testing.B) {
	for name, s := range map[string]string{"legal": strings.Repeat("web-", 60), "cut": strings.Repeat("a", 1_400_000)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Text(s, NameLimit)
			}
		})
	}
}
