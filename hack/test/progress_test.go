// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gotest.tools/gotestsum/testjson"
)

func TestPackagesAsTheyEnd(t *testing.T) {
	for name, want := range map[string]string{
		"skips": "  0:00  passed   example.test/recorded/skips   0.0 s   2 passed, 4 skipped\n",
		"fails": "  0:00  failed   example.test/recorded/fails TestFails\n" +
			"  0:00  failed   example.test/recorded/fails TestParent/bad\n" +
			"  0:00  failed   example.test/recorded/fails TestParent\n" +
			"  0:00  FAILED   example.test/recorded/fails   0.0 s   2 passed, 3 failed\n",
		"broken":   "  0:00  FAILED   example.test/recorded/broken   0.0 s   0 passed\n",
		"untested": "",
	} {
		t.Run(name, func(t *testing.T) {
			_, shown := recorded(t, name, false)
			first, got, _ := strings.Cut(shown.String(), "\n")
			if !strings.HasPrefix(first, "building") {
				t.Errorf("the first line: got %q, want that it is building", first)
			}
			// Columns and times are as they are.
			columns := strings.NewReplacer("    ", " ", "   ", " ", "  ", " ", "0.1 s", "0.0 s")
			if diff := cmp.Diff(columns.Replace(want), columns.Replace(got)); diff != "" {
				t.Errorf("shown (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	now := time.Time{}
	p := newProgress(&screen{out: &strings.Builder{}}, func() time.Time { return now })
	p.expect(20)
	p.expect(2)
	happens := func(after time.Duration, action testjson.Action, name, test string) {
		now = now.Add(after)
		p.event(testjson.TestEvent{Action: action, Package: project + name, Test: test}, &testjson.Package{Total: 1})
	}
	check := func(want string) {
		t.Helper()
		if got := p.status(); got != want {
			t.Errorf("status: got  %s\nwant %s", got, want)
		}
	}
	now = now.Add(9 * time.Second)
	check("  0:09  0 of 22 packages, building")
	p.fetched()
	check("  0:09  0 of 22 packages, 1 modules downloaded, building")
	happens(time.Second, "start", "datapath", "")
	happens(time.Second, testjson.ActionRun, "datapath", "TestA")
	happens(0, testjson.ActionRun, "datapath", "TestA/sub")
	happens(time.Second, testjson.ActionPause, "datapath", "TestA")
	happens(0, testjson.ActionRun, "datapath", "TestB")
	happens(30*time.Second, "start", "flows", "")
	check("  0:42  0 of 22 packages, 1 modules downloaded; running: datapath 32s (TestB 30s), flows 0s")
	happens(20*time.Second, testjson.ActionCont, "datapath", "TestA")
	happens(0, testjson.ActionPass, "flows", "")
	check("  1:02  1 of 22 packages; running: datapath 52s (TestB 50s and 1 more)")
	happens(0, testjson.ActionSkip, "datapath", "TestB")
	happens(time.Second, testjson.ActionPass, "datapath", "TestA")
	check("  1:03  1 of 22 packages; running: datapath 53s")
	happens(0, testjson.ActionFail, "datapath", "")
	check("  1:03  2 of 22 packages, building")
}

// A terminal shows the status below the lines, in one line of it.
func TestScreen(t *testing.T) {
	for name, test := range map[string]struct {
		width int
		want  string
	}{
		"terminal": {10, "a line\na status w\r\x1b[Kanother line\na status w\r\x1b[K"},
		"file":     {0, "a line\na status with more\nanother line\n"},
	} {
		t.Run(name, func(t *testing.T) {
			out := &strings.Builder{}
			s := &screen{out: out, width: test.width}
			s.line("a line")
			s.status("a status with more")
			s.line("another line")
			s.status("")
			want := strings.ReplaceAll(test.want, "a status w\r", "a status \r")
			if diff := cmp.Diff(want, out.String()); diff != "" {
				t.Errorf("written (-want +got):\n%s", diff)
			}
		})
	}
}
