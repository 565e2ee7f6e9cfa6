// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"gotest.tools/gotestsum/testjson"
)

const (
	// grace is how long interrupted tests have to end by themselves.
	grace = 5 * time.Second
	// timeout of a package is for tests that hang: `go test` has 10 minutes, which a busy
	// machine of two CPUs comes close to.
	timeout = "-timeout=30m"
	// actionBuild is an event of a package that is built, not tested.
	actionBuild = testjson.Action("build-output")
)

// suite is a run of `go test` in one module.
type suite struct {
	module
	arguments []string
	show      *progress

	// What follows is complete when run has returned.
	tests *testjson.Execution
	err   error // of go test, without an exit code

	fail bool // as its exit code says

	mu   sync.Mutex
	said []string // by go test itself and by the compiler, in lines with their ends
}

func newSuite(m module, arguments []string, show *progress) *suite {
	return &suite{module: m, arguments: arguments, show: show}
}

// run runs it to its end. What is left of its processes when the context ends is killed.
func (s *suite) run(ctx context.Context) {
	s.count(ctx)
	arguments := append([]string{"test", "-json", "-count=1", timeout}, s.arguments...)
	test := exec.CommandContext(ctx, "go", append(arguments, s.packages...)...)
	test.Dir = s.folder
	// A process group of its own, as test binaries and what they start outlive go test.
	test.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	test.Cancel = func() error { return syscall.Kill(-test.Process.Pid, syscall.SIGINT) }
	test.WaitDelay = grace
	events, toEvents := io.Pipe()
	messages, toMessages := io.Pipe()
	test.Stdout, test.Stderr = toEvents, toMessages
	if s.err = test.Start(); s.err != nil {
		return
	}
	scanned := make(chan error)
	go func() {
		err := s.scan(events, messages)
		// Whatever it was that could not be read, go test must not wait for a reader.
		events.CloseWithError(err)
		messages.CloseWithError(err)
		scanned <- err
	}()
	s.end(test.Wait())
	_ = syscall.Kill(-test.Process.Pid, syscall.SIGKILL) // there may be nobody
	toEvents.Close()
	toMessages.Close()
	s.err = errors.Join(s.err, <-scanned)
}

// scan reads what go test says, of events and beside them, to the end.
func (s *suite) scan(events, messages io.Reader) (err error) {
	s.tests, err = testjson.ScanTestOutput(testjson.ScanConfig{
		Stdout: events, Stderr: messages, Handler: s, IgnoreNonJSONOutputLines: true,
	})
	return err
}

// end takes how go test ended. Its exit code repeats what the tests have said.
func (s *suite) end(err error) {
	s.fail = err != nil
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		s.err = err
	}
}

// count tells how many packages there are with tests, which is only to be shown.
func (s *suite) count(ctx context.Context) {
	list := exec.CommandContext(ctx, "go", append([]string{"list", "-find", "-f", "{{if or .TestGoFiles .XTestGoFiles}}x{{end}}"}, s.packages...)...)
	list.Dir = s.folder
	if output, err := list.Output(); err == nil {
		s.show.expect(strings.Count(string(output), "x"))
	}
}

// Event takes an event after the execution has it.
func (s *suite) Event(event testjson.TestEvent, tests *testjson.Execution) error {
	if event.Action == actionBuild {
		s.say(event.Output)
		return nil
	}
	s.show.event(event, tests.Package(event.Package))
	return nil
}

// Err takes a line of standard error.
func (s *suite) Err(line string) error {
	if strings.HasPrefix(line, "go: downloading ") {
		s.show.fetched()
		return nil
	}
	s.say(line + "\n")
	return nil
}

// say keeps what go test says for the report. Events and lines come by two goroutines.
func (s *suite) say(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, text)
}

// tested returns the names of the tested packages in their order.
func (s *suite) tested() []string {
	if s.tests == nil {
		return nil
	}
	var names []string
	for _, name := range s.tests.Packages() {
		if name != "" { // of events of the compiler
			names = append(names, name)
		}
	}
	return names
}
