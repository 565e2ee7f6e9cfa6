// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"gotest.tools/gotestsum/testjson"
)

// counts are of tests and subtests. A package that failed without a test of it is a failed one.
type counts struct{ passed, failed, skipped int }

// report writes why tests were skipped, what the failed ones said, and the counts. It
// reports whether anything failed.
func report(out *screen, suites []*suite) bool {
	var all counts
	for _, s := range suites {
		for _, name := range s.tested() {
			all.passed += len(s.tests.Package(name).Passed)
			all.skipped += len(s.tests.Package(name).Skipped)
		}
	}
	writeReasons(out, suites)
	for _, s := range suites {
		all.failed += writeFailed(out, s)
	}
	if all.failed > 0 {
		out.line("\nfailed:")
		for _, s := range suites {
			writeNames(out, s)
		}
	}
	out.line(fmt.Sprintf("%d passed, %d failed, %d skipped", all.passed, all.failed, all.skipped))
	return all.failed > 0
}

// writeReasons writes how many tests were skipped for each reason, the most first.
func writeReasons(out *screen, suites []*suite) {
	reasons := make(map[string]int)
	for _, s := range suites {
		for _, name := range s.tested() {
			for _, test := range s.tests.Package(name).Skipped {
				reasons[reason(s.tests.OutputLines(test))]++
			}
		}
	}
	if len(reasons) == 0 {
		return
	}
	out.line("\nskipped:")
	for _, r := range slices.SortedFunc(maps.Keys(reasons), func(a, b string) int {
		return cmp.Or(reasons[b]-reasons[a], cmp.Compare(a, b))
	}) {
		out.line(fmt.Sprintf("  %4d  %s", reasons[r], r))
	}
}

var logged = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)

// reason returns the last thing that a skipped test has logged.
func reason(lines []string) string {
	for _, line := range slices.Backward(lines) {
		if at := logged.FindStringIndex(line); at != nil {
			return strings.TrimSpace(line[at[1]:])
		}
	}
	return "without a reason"
}

// writeFailed writes what failed of a module, with what it said, and returns how many.
func writeFailed(out *screen, s *suite) int {
	if (s.fail || s.err != nil) && len(s.said) > 0 {
		out.line("\n=== go, in " + s.folder)
		out.line(strings.TrimSpace(strings.Join(s.said, "")))
	}
	failed := failedOf(s)
	for _, test := range failed {
		lines := content(s.tests.OutputLines(test))
		if test.Test != "" && len(lines) == 0 {
			continue // its subtests have said it
		}
		out.line("\n=== " + title(test) + lasted(test))
		out.line(strings.TrimRight(strings.Join(lines, ""), "\n"))
	}
	return len(failed) + len(broken(s))
}

func writeNames(out *screen, s *suite) {
	for _, test := range failedOf(s) {
		out.line("  " + title(test))
	}
	for _, name := range broken(s) {
		out.line("  " + name)
	}
}

// broken returns why a module failed, if no test and no package of it tells.
func broken(s *suite) []string {
	switch {
	case s.err != nil:
		return []string{fmt.Sprintf("go test in %s: %v", s.folder, s.err)}
	case s.fail && len(failedOf(s)) == 0:
		return []string{"go test in " + s.folder}
	}
	return nil
}

// failedOf returns the tests that failed, and packages that did without.
func failedOf(s *suite) []testjson.TestCase {
	if s.tests == nil {
		return nil
	}
	return slices.DeleteFunc(s.tests.Failed(), func(test testjson.TestCase) bool { return test.Package == "" })
}

// framing is what `go test -v` prints of its own.
var framing = regexp.MustCompile(`^\s*(=== (RUN|NAME|PAUSE|CONT) |--- FAIL: )`)

// content returns the lines that a test itself has written.
func content(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), framing.MatchString)
}

func title(test testjson.TestCase) string {
	return strings.TrimSpace(short(test.Package) + " " + test.Test.Name())
}

func lasted(test testjson.TestCase) string {
	switch {
	case test.Test == "":
		return ""
	case test.Elapsed < 0:
		return " (did not end)"
	}
	return fmt.Sprintf(" (%.2f s)", test.Elapsed.Seconds())
}
