// SPDX-License-Identifier: Apache-2.0

// Command test runs `go test -json` in the project's modules and shows how far that is:
// each package as it ends, and what runs meanwhile. At its end it prints the reasons why
// tests were skipped, what the failed ones said, and last `N passed, N failed, N skipped`.
//
// Arguments are given to `go test`, without packages; PACKAGES="pattern…" tests these of the
// first module instead of all of both. The working directory is the repository's root. It
// exits with 0 if everything passed, with 1 if something failed, and with 130 if it was
// interrupted, by when no process of the tests is left.
package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"
)

// modules are tested beside each other. The packages that take longest come first, so that
// they are not what everything waits for at the end.
var modules = []module{
	{folder: ".", packages: []string{"./datapath", "./cmd/podmeter", "./hack/hostile", "./..."}},
	{folder: "hack/page", packages: []string{"./..."}},
}

// module is a Go module and the packages of it that are tested.
type module struct {
	folder   string
	packages []string
}

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	chosen := modules
	if patterns := strings.Fields(os.Getenv("PACKAGES")); len(patterns) > 0 {
		chosen = []module{{folder: ".", packages: patterns}}
	}
	os.Exit(run(signals, newScreen(), chosen, os.Args[1:]))
}

// newScreen returns standard output, which is a terminal or not.
func newScreen() *screen {
	s := &screen{out: os.Stdout}
	if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
		s.width = width
	}
	return s
}

// run tests the modules until all have ended or a signal comes, and returns the exit code.
func run(signals <-chan os.Signal, out *screen, modules []module, arguments []string) int {
	show := newProgress(out, time.Now)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	suites := make([]*suite, len(modules))
	var running, showing sync.WaitGroup
	for i, m := range modules {
		suites[i] = newSuite(m, arguments, show)
		running.Go(func() { suites[i].run(ctx) })
	}
	ended := make(chan struct{})
	showing.Go(func() { show.until(ended, signals, stop) })
	running.Wait()
	close(ended)
	showing.Wait()
	failed := report(out, suites)
	switch {
	case ctx.Err() != nil:
		return 130
	case failed:
		return 1
	}
	return 0
}
