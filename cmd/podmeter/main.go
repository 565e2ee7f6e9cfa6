// SPDX-License-Identifier: Apache-2.0

// Podmeter is a packet-level flow meter for Kubernetes nodes.
//
// This package is its command line: it turns arguments, environment and files
// into options, and errors into exit codes. What the subcommands do lies in the
// packages below. Exit codes: 0 fine, 1 failed, 2 wrong usage; of verify 3 for what it
// could not judge.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/secret"
	"github.com/spf13/cobra"
)

// version is set at release by -ldflags "-X main.version=v1.2.3"; without, the
// build information says.
var version string

func main() { os.Exit(run(arguments(os.Args), os.Environ(), os.Stdout, os.Stderr)) }

// run is podmeter for one command line, and returns its exit code.
func run(args, environ []string, stdout, stderr io.Writer) int {
	return production(environ).run(args, stdout, stderr)
}

// run executes one command line until it is interrupted.
func (c *commands) run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // so that a second signal ends us whatever hangs
	return c.execute(ctx, args, stdout, stderr)
}

// execute runs one command line and returns the exit code.
func (c *commands) execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := c.root(stdout, stderr)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	agent.Locate(command.Flags(), err)
	complain(stderr, err)
	code := 1
	if judged := new(verdictError); errors.As(err, &judged) {
		code = judged.code
	}
	if agent.IsUsage(err) {
		fmt.Fprintf(stderr, "see '%s --help'\n", command.CommandPath())
		code = 2
	}
	// Last, as that is what is read first of a pod that does not start.
	if fault := new(manifestError); errors.As(err, &fault) {
		fmt.Fprintln(stderr, "podmeter: in the pod's manifest,", fault.change)
	}
	return code
}

// complain writes an error, a line for each that it joins.
func complain(w io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "podmeter: %s\n", printable(secret.Text(strings.TrimSuffix(line, "\n"))))
	}
}

// noArguments refuses arguments that are no flags.
func noArguments(command *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if slices.Contains([]string{"true", "false", "yes", "no", "on", "off", "1", "0"}, strings.ToLower(args[0])) {
		hint = "; a flag that is true or false takes its value after an equals sign, as in --page=false"
	}
	return agent.Usage(fmt.Errorf("%q is too much: '%s' takes flags only%s", args[0], command.CommandPath(), hint))
}
