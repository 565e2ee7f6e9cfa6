// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/spf13/cobra"
)

const verifyLong = `Prove podmeter's numbers on this node: for each interface of a pod, what the agent
exports beside what the interface itself has counted, to the byte and the packet,
and the invariants of all series.

It reads the interfaces' counters itself, asks the agent for a drain, reads what it
exports, and the counters again. Only if they have not moved meanwhile is an
interface judged; else it is looked at again, ten times at most. Each row has

  KERNEL      what the interface itself has counted
  BEFORE      what of it passed before podmeter counted there, and is on no series
  PODMETER    what the series of the pod have of the interface
  DIFFERENCE  KERNEL - BEFORE - PODMETER
  PREDICTED   the difference that the agent itself knows of, by the interface's state
  VERDICT     equal      the difference is 0
              explained  it is what is predicted: offloads, XDP or drops (the README's
                         questions), or bytes that wait for their pod
              unequal    it is not: a bug, please report it
              settling   what passed before the attachment is not known yet: try again
              moving     packets moved each of the ten times: try again, or --watch
              unknown    packets could pass that nothing counts; the reason is told

Below the table stand the invariants (flows and retired flows are the pod; external
rows are the external flows; a pod's interfaces, with earlier ones, are the pod), and
by name what is in no flow, waits for its pod, or is lost, and why; and whether all
of it is saved for a restart, which decides no exit code. Pods in the
node's own network have no interface: the invariants alone apply to them.

The agent is found as 'podmeter status' finds it: by --socket, PODMETER_SOCKET or its
--config file. It needs the agent's network namespace, user and CAP_NET_ADMIN; in a
cluster: kubectl exec -n podmeter daemonset/podmeter -- /podmeter verify

Exit codes: 0 all is judged, and equal or explained; 1 a row is unequal, an invariant
fails, or the agent does not answer; 2 wrong usage; 3 nothing is unequal, but
something could not be judged. With --watch it is the worst of all rounds, where 1 is
worse than 3.`

// verifyPause is the time between two rounds of --watch.
const verifyPause = 5 * time.Second

// verifyOptions are the flags of verify.
type verifyOptions struct {
	config agent.Config
	output string
	watch  bool
}

func (c *commands) verify() *cobra.Command {
	options := verifyOptions{config: agent.Defaults()}
	command := &cobra.Command{
		Use:   "verify",
		Short: "Compare the agent's numbers with the kernel's own counters",
		Long:  verifyLong,
		Example: "  sudo podmeter verify\n" +
			"  sudo podmeter verify --watch\n" +
			"  sudo podmeter verify -o json | jq '.interfaces[] | select(.verdict != \"equal\")'",
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			if _, err := agent.Load(command.Flags(), c.environ); err != nil {
				return err
			}
			if err := checkOutput(options.output, outputTable, outputJSON); err != nil {
				return err
			}
			return c.runVerify(command, &options)
		},
	}
	flags := command.Flags()
	addConfigFlag(flags, &options.config)
	agent.AddSocketFlag(flags, &options.config.Socket)
	addOutputFlag(command, &options.output, outputTable, outputJSON)
	flags.BoolVar(&options.watch, "watch", false, "again every few seconds until interrupted; the exit code is the worst one's")
	return command
}

func (c *commands) runVerify(command *cobra.Command, options *verifyOptions) error {
	client := newClient(options.config.Socket)
	defer client.close()
	round := func() error {
		report, err := verify.Run(command.Context(), agentSource{client}, readKernel)
		if err != nil {
			return err
		}
		if err := writeReport(command.OutOrStdout(), report, options.output); err != nil {
			return err
		}
		return verdictOf(report, options.output)
	}
	if !options.watch {
		return round()
	}
	return c.watchVerify(command.Context(), command.ErrOrStderr(), round)
}

// watchVerify makes rounds until it is interrupted, and returns what the worst of them
// returned. A round that the interruption has broken off does not count.
func (c *commands) watchVerify(ctx context.Context, stderr io.Writer, round func() error) error {
	var worst error
	for {
		err := round()
		if ctx.Err() != nil {
			return worst
		}
		if err != nil {
			complain(stderr, err)
		}
		if severity(err) > severity(worst) {
			worst = err
		}
		select {
		case <-ctx.Done():
			return worst
		case <-time.After(c.verifyPause):
		}
	}
}

// severity orders what rounds return.
func severity(err error) int {
	judged := new(verdictError)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &judged) && judged.code == verify.CodeUndecided:
		return 1
	}
	return 2
}

// verdictError is a verdict that is not in podmeter's favour, and its exit code.
type verdictError struct {
	code int
	text string
}

// Error implements error.
func (e *verdictError) Error() string { return e.text }

// verdictOf returns the verdict as an error. Its text is not repeated where the reader
// of a table has it already.
func verdictOf(report *verify.Report, output string) error {
	switch {
	case report.Code == verify.CodeEqual:
		return nil
	case output == outputTable:
		return &verdictError{code: report.Code}
	}
	return &verdictError{report.Code, report.Conclusion()}
}

func writeReport(w io.Writer, report *verify.Report, output string) error {
	if output == outputJSON {
		return writeJSON(w, report)
	}
	return report.Write(printableWriter{w})
}
