// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/spf13/cobra"
)

// uninstallOptions say what to remove.
type uninstallOptions struct {
	// PinPath and StateDir are those of the agent that left things there.
	PinPath, StateDir string
	Logger            *slog.Logger
}

const uninstallLong = `Remove what an agent leaves on the host when it stops: the attached programs and
the pinned maps, which go on counting, and the state in files. The counters end
with them; the next agent starts from zero. Stop the agent first.

Only what is podmeter's own is touched: its links and its filters, its pins and its
state, and a clsact qdisc if podmeter created it and nobody else has a filter on it.
What was removed is printed, a line each. With nothing there to remove all is well.`

func (c *commands) uninstaller() *cobra.Command {
	config := agent.Defaults()
	command := &cobra.Command{
		Use:     "uninstall",
		Short:   "Remove programs, maps and state from this host",
		Long:    uninstallLong,
		Example: "  sudo podmeter uninstall\n  sudo podmeter uninstall --pin-path /sys/fs/bpf/podmeter-test --state-dir /run/podmeter-test",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			return c.remove(command, &config)
		},
	}
	fs := command.Flags()
	addConfigFlag(fs, &config)
	agent.AddPathFlags(fs, &config.PinPath, &config.StateDir)
	return command
}

func (c *commands) remove(command *cobra.Command, config *agent.Config) error {
	if _, err := agent.Load(command.Flags(), c.environ); err != nil {
		return err
	}
	if err := config.ValidatePaths(); err != nil {
		return err
	}
	log, err := newLogger(command.ErrOrStderr(), config.LogLevel, config.LogFormat, nil)
	if err != nil {
		return err
	}
	removed, err := c.uninstall(command.Context(), uninstallOptions{
		PinPath: config.PinPath, StateDir: config.StateDir, Logger: log,
	})
	out := command.OutOrStdout()
	for _, what := range removed {
		fmt.Fprintln(out, "removed", printable(what))
	}
	if len(removed) == 0 && err == nil {
		fmt.Fprintf(out, "nothing to remove: no agent has left anything at %s or %s\n", config.PinPath, config.StateDir)
	}
	return err
}
