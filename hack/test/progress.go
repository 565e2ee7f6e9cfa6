// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"gotest.tools/gotestsum/testjson"
)

// project is what the names of its packages begin with.
const project = "github.com/podmeter/podmeter/"

// progress shows what runs. Its methods may be called from any goroutine.
type progress struct {
	now   func() time.Time
	began time.Time

	mu       sync.Mutex
	out      *screen
	packages int // with tests, as far as it is known
	ended    int
	modules  int // that were downloaded
	running  map[string]*runs
}

// runs is a package that is tested, and its tests that run at the moment by their start.
type runs struct {
	since time.Time
	tests map[string]time.Time
}

func newProgress(out *screen, now func() time.Time) *progress {
	p := &progress{now: now, began: now(), out: out, running: make(map[string]*runs)}
	out.line("building the tests, which takes minutes the first time")
	return p
}

// until shows the status until the end: each second on a terminal, each 10 s elsewhere. At a
// signal it shows what runs and interrupts it.
func (p *progress) until(ended <-chan struct{}, signals <-chan os.Signal, interrupt func()) {
	every := 10 * time.Second
	if p.out.terminal() {
		every = time.Second
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			p.tick()
		case by := <-signals:
			p.interrupted(by)
			interrupt()
			signals = nil // it is on its way
		case <-ended:
			p.out.status("")
			return
		}
	}
}

func (p *progress) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.status(p.status())
}

// expect adds packages to those that will be tested.
func (p *progress) expect(packages int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.packages += packages
}

// fetched counts a module.
func (p *progress) fetched() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.modules++
}

// event takes an event of a test or of a package, which has it already.
func (p *progress) event(event testjson.TestEvent, tests *testjson.Package) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case event.Test != "":
		p.testEvent(event)
	case event.Action == "start":
		p.running[event.Package] = &runs{since: p.now(), tests: make(map[string]time.Time)}
	case event.Action.IsTerminal():
		delete(p.running, event.Package)
		p.packageEnded(event, tests)
	}
}

func (p *progress) testEvent(event testjson.TestEvent) {
	if event.Action == testjson.ActionFail {
		p.out.line(fmt.Sprintf("%s  failed   %s %s", p.elapsed(), short(event.Package), event.Test))
	}
	in := p.running[event.Package]
	if in == nil || testjson.TestName(event.Test).IsSubTest() {
		return
	}
	switch event.Action {
	case testjson.ActionRun, testjson.ActionCont:
		in.tests[event.Test] = p.now()
	case testjson.ActionPause, testjson.ActionPass, testjson.ActionFail, testjson.ActionSkip:
		delete(in.tests, event.Test)
	}
}

// packageEnded shows a package unless it has no tests.
func (p *progress) packageEnded(event testjson.TestEvent, tests *testjson.Package) {
	if tests.IsEmpty() {
		return
	}
	p.ended++
	result := "passed"
	if event.Action == testjson.ActionFail {
		result = "FAILED"
	}
	counts := []string{fmt.Sprintf("%d passed", len(tests.Passed))}
	if n := len(tests.Failed); n > 0 {
		counts = append(counts, fmt.Sprintf("%d failed", n))
	}
	if n := len(tests.Skipped); n > 0 {
		counts = append(counts, fmt.Sprintf("%d skipped", n))
	}
	p.out.line(fmt.Sprintf("%s  %s   %-26s %6.1f s   %s", p.elapsed(), result, short(event.Package), event.Elapsed, strings.Join(counts, ", ")))
}

// status returns the line of what runs.
func (p *progress) status() string {
	parts := []string{fmt.Sprintf("%s  %d of %d packages", p.elapsed(), p.ended, p.packages)}
	if p.ended == 0 && p.modules > 0 {
		parts = append(parts, fmt.Sprintf("%d modules downloaded", p.modules))
	}
	if len(p.running) == 0 {
		return strings.Join(append(parts, "building"), ", ")
	}
	names := slices.SortedFunc(maps.Keys(p.running), func(a, b string) int {
		return p.running[a].since.Compare(p.running[b].since)
	})
	var running []string
	for _, name := range names {
		running = append(running, fmt.Sprintf("%s %s%s", short(name), p.since(p.running[name].since), p.testsOf(p.running[name])))
	}
	return strings.Join(parts, ", ") + "; running: " + strings.Join(running, ", ")
}

// testsOf returns which tests of a package run, by the one that has run for longest.
func (p *progress) testsOf(in *runs) string {
	if len(in.tests) == 0 {
		return ""
	}
	eldest := slices.MinFunc(slices.Collect(maps.Keys(in.tests)), func(a, b string) int {
		return cmp.Or(in.tests[a].Compare(in.tests[b]), cmp.Compare(a, b))
	})
	others := ""
	if n := len(in.tests) - 1; n > 0 {
		others = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf(" (%s %s%s)", eldest, p.since(in.tests[eldest]), others)
}

func (p *progress) interrupted(by os.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.line(by.String() + ": " + strings.TrimSpace(p.status()))
}

func (p *progress) elapsed() string {
	s := int(p.now().Sub(p.began).Seconds())
	return fmt.Sprintf("%3d:%02d", s/60, s%60)
}

func (p *progress) since(t time.Time) string {
	return p.now().Sub(t).Truncate(time.Second).String()
}

// short returns the name of a package within the project.
func short(name string) string { return strings.TrimPrefix(name, project) }
