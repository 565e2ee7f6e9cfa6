// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

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

With --ready or --alive it is a probe: it prints the reason and exits with 1 if the
agent is not ready, or if its drains do not go on, so that it should be started again.
An agent that is not ready counts all the same. In a pod, an exec probe finds the
socket by the same variables or --config file as the agent.`

// statusOptions are the flags of status.
type statusOptions struct {
	config agent.Config
	output string
	ready  bool
	alive  bool
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
		Example: "  sudo podmeter status\n  sudo podmeter status -o json | jq '.interfaces[] | select(.pod == \"\")'\n  podmeter status --ready",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			return c.showStatus(command, &options)
		},
	}
	flags := command.Flags()
	addConfigFlag(flags, &options.config)
	agent.AddSocketFlag(flags, &options.config.Socket)
	addOutputFlag(command, &options.output, statusOutputs()...)
	flags.BoolVar(&options.ready, "ready", false, "only say whether the agent is ready, by the exit code too")
	flags.BoolVar(&options.alive, "alive", false, "only say whether the agent's drains go on, by the exit code too")
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
	if err := checkOutput(options.output, statusOutputs()...); err != nil {
		return err
	}
	if options.ready && options.alive {
		return agent.Usage(errors.New("--ready and --alive are two questions: ask one at a time"))
	}
	ctx, cancel := context.WithTimeout(command.Context(), answerTimeout)
	defer cancel()
	client := newClient(options.config.Socket)
	defer client.close()
	if options.ready || options.alive {
		path, fault := agent.ReadyPath, "not ready"
		if options.alive {
			path, fault = agent.HealthPath, "stuck"
		}
		reason, err := client.probe(ctx, path, fault)
		fmt.Fprint(command.OutOrStdout(), printable(reason))
		return err
	}
	status, err := client.status(ctx)
	if err != nil {
		return err
	}
	if options.output == outputJSON {
		return writeJSON(command.OutOrStdout(), status)
	}
	return writeStatus(command.OutOrStdout(), status, c.now())
}
