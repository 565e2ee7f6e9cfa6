// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// recorded returns a suite of what `go test -json` has said of a package, and what was
// shown meanwhile. testdata holds it for packages of an earlier Go, as they were recorded.
func recorded(t *testing.T, name string, fail bool) (*suite, *strings.Builder) {
	t.Helper()
	events, err := os.Open(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close() // of a read: nothing to lose
	shown := &strings.Builder{}
	show := newProgress(&screen{out: shown}, func() time.Time { return time.Time{} })
	s := newSuite(module{folder: "."}, nil, show)
	s.fail = fail
	if err := s.scan(events, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	return s, shown
}

func TestReport(t *testing.T) {
	for _, test := range []struct {
		name string
		fail bool
		want string
	}{
		{"skips", false, `
skipped:
     2  needs kube-apiserver: make tools
     1  kernel without TCX (Linux 6.6)
     1  without a reason
2 passed, 0 failed, 4 skipped
`},
		{"fails", true, `
=== example.test/recorded/fails TestFails (0.00 s)
    f_test.go:8: before it fails
    f_test.go:9: got 1, want 2

=== example.test/recorded/fails TestParent/bad (0.00 s)
    f_test.go:14: the subtest says why

failed:
  example.test/recorded/fails TestFails
  example.test/recorded/fails TestParent/bad
  example.test/recorded/fails TestParent
2 passed, 3 failed, 0 skipped
`},
		{"broken", true, `
=== go, in .
# example.test/recorded/broken [example.test/recorded/broken.test]
broken/b_test.go:5:32: undefined: undefined

=== example.test/recorded/broken
FAIL	example.test/recorded/broken [build failed]

failed:
  example.test/recorded/broken
0 passed, 1 failed, 0 skipped
`},
		{"testmain", true, `
=== example.test/recorded/main
PASS
a pin is left
FAIL	example.test/recorded/main	…

failed:
  example.test/recorded/main
1 passed, 1 failed, 0 skipped
`},
		{"panics", true, `
=== example.test/recorded/panics TestPanics (0.00 s)
panic: no way on [recovered, repanicked]
…
failed:
  example.test/recorded/panics TestPanics
1 passed, 1 failed, 0 skipped
`},
		{"hangs", true, `
=== example.test/recorded/hangs
panic: test timed out after 1s
…
=== example.test/recorded/hangs TestHangs (did not end)
    h_test.go:5: on its way

failed:
  example.test/recorded/hangs
  example.test/recorded/hangs TestHangs
0 passed, 2 failed, 0 skipped
`},
		{"untested", false, "0 passed, 0 failed, 0 skipped\n"},
		// Neither a test nor a package tells why.
		{"untested", true, "\nfailed:\n  go test in .\n0 passed, 1 failed, 0 skipped\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := recorded(t, test.name, test.fail)
			said := &strings.Builder{}
			if got := report(&screen{out: said}, []*suite{s}); got != test.fail {
				t.Errorf("failed: got %t, want %t", got, test.fail)
			}
			compare(t, said.String(), test.want)
		})
	}
}

// compare compares a text with one that has … for what it leaves open.
func compare(t *testing.T, got, want string) {
	t.Helper()
	rest := got
	for i, part := range strings.Split(want, "…") {
		at := strings.Index(rest, part)
		if at < 0 || i == 0 && at > 0 {
			t.Fatalf("got %s\ndifference to what is wanted (-got +want):\n%s", got, cmp.Diff(got, want))
		}
		rest = rest[at+len(part):]
	}
	if rest != "" {
		t.Errorf("got %q behind what is wanted", rest)
	}
}

// What hides a test's own words must not hide them from the report.
func TestContent(t *testing.T) {
	lines := []string{
		"=== RUN   TestX\n", "=== PAUSE TestX\n", "=== CONT  TestX\n", "=== NAME  TestX\n", "    --- FAIL: TestX/a (0.10s)\n",
		"=== its own line\n", "    x_test.go:1: --- FAIL: quoted\n",
	}
	want := lines[5:]
	if diff := cmp.Diff(want, content(lines)); diff != "" {
		t.Errorf("content (-want +got):\n%s", diff)
	}
}
