// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const statusLong = `Ask the agent of this host how it does: each interface with its pod, attachment,
packets and state, the last drain, what could not be attributed, and how fresh the
names of pods are. It talks to the agent's unix socket, so it needs the same user.

DIFFERENCE is the interface's own packets less podmeter's since the attachment, on
both ways; 0 is what is expected. BEFORE is the bytes that crossed before. Each
state but attached is explained below the list, with what to do. The formats table
and text are the same.

With --edges it shows who talks to whom instead: the workloads of this node and their
peers, those that moved most bytes first. The rows are those of the agent's page.

With --ready or --alive it is a probe: it prints the reason and exits with 1 if the
agent is not ready, or if its drains do not go on, so that it should be started again.
An agent that is not ready counts all the same. With --wait the answer is awaited: an
agent that starts is no failure then. In a pod, an exec probe finds the
socket by the same variables or --config file as the agent.`

// statusOptions are the flags of status.
type statusOptions struct {
	config agent.Config
	output string
	edges  bool
	ready  bool
	alive  bool
	wait   time.Duration
}

// probes reports whether the answer is a yes or no.
func (o *statusOptions) probes() bool { return o.ready || o.alive }

func (o *statusOptions) validate() error {
	switch {
	case o.ready && o.alive:
		return agent.Usage(errors.New("--ready and --alive are two questions: ask one at a time"))
	case o.edges && o.probes():
		return agent.Usage(errors.New("--edges shows no answer to --ready or --alive: ask for one of them"))
	case o.wait < 0:
		return agent.Usage(agent.NewFault("wait", o.wait, "0 or more is expected"))
	case o.wait > 0 && !o.probes():
		return agent.Usage(agent.NewFault("wait", o.wait, "it is for --ready and --alive"))
	}
	return checkOutput(o.output, statusOutputs()...)
}

// statusOutputs are the formats of a status: for people, by an older name too, and for
// programs.
func statusOutputs() []string { return []string{outputTable, outputText, outputJSON} }

func (c *commands) status() *cobra.Command {
	options := statusOptions{config: agent.Defaults()}
	command := &cobra.Command{
		Use:     "status",
		Short:   "Ask the agent of this host how it does",
		Long:    statusLong,
		Example: "  sudo podmeter status\n  sudo podmeter status -o json | jq '.interfaces[] | select(.pod == \"\")'\n  sudo podmeter status --edges\n  podmeter status --ready --wait 30s",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			return c.showStatus(command, &options)
		},
	}
	flags := command.Flags()
	addConfigFlag(flags, &options.config)
	agent.AddSocketFlag(flags, &options.config.Socket)
	addOutputFlag(command, &options.output, statusOutputs()...)
	flags.BoolVar(&options.edges, "edges", false, "show who talks to whom instead")
	flags.BoolVar(&options.ready, "ready", false, "only say whether the agent is ready, by the exit code too")
	flags.BoolVar(&options.alive, "alive", false, "only say whether the agent's drains go on, by the exit code too")
	flags.DurationVar(&options.wait, "wait", 0, "how long --ready and --alive wait for a yes before they say no")
	return command
}

// addConfigFlag adds --config for commands that read the agent's own file.
func addConfigFlag(flags *pflag.FlagSet, config *agent.Config) {
	flags.StringVar(&config.ConfigFile, "config", "", "YAML `file` of the agent, to find it by")
}

func (c *commands) showStatus(command *cobra.Command, options *statusOptions) error {
	if _, err := agent.Load(command.Flags(), c.environ); err != nil {
		return err
	}
	if err := options.validate(); err != nil {
		return err
	}
	client := newClient(options.config.Socket)
	defer client.close()
	client.patience = cmp.Or(options.wait, answerTimeout)
	ctx, cancel := context.WithTimeout(command.Context(), client.patience)
	defer cancel()
	if options.probes() {
		return probe(ctx, client, options, command.OutOrStdout())
	}
	if options.edges {
		traffic, err := client.traffic(ctx)
		return show(command.OutOrStdout(), options.output, traffic, err, writeTraffic)
	}
	status, err := client.status(ctx)
	return show(command.OutOrStdout(), options.output, status, err, func(w io.Writer, s *agent.Status) error {
		return writeStatus(w, s, c.now())
	})
}

// show writes an answer, if there is one, for programs or by write for people.
func show[A any](w io.Writer, output string, answer *A, err error, write func(io.Writer, *A) error) error {
	if err != nil {
		return err
	}
	if output == outputJSON {
		return writeJSON(w, answer)
	}
	return write(w, answer)
}

// probe asks the agent for a yes or no, and shows its reason.
func probe(ctx context.Context, client *client, options *statusOptions, out io.Writer) error {
	path, fault, ask := agent.ReadyPath, "not ready", client.probe
	if options.alive {
		path, fault = agent.HealthPath, "stuck"
	}
	if options.wait > 0 {
		ask = client.awaitProbe
	}
	reason, err := ask(ctx, path, fault)
	fmt.Fprint(out, printable(reason))
	return err
}
