// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip/fetch"
	"github.com/spf13/cobra"
)

// commands builds the subcommands. Its fields are what they need of the world,
// so that tests can put something else there.
type commands struct {
	environ  []string
	hostname func() (string, error)
	now      func() time.Time
	// verifyPause is the time between two rounds of verify --watch.
	verifyPause time.Duration

	// runAgent meters until the context ends.
	runAgent func(context.Context, agent.Config, *slog.Logger) error
	// runDemo shows the demo on out until it is over or the context ends.
	runDemo func(ctx context.Context, options demoOptions, out io.Writer) error
	// runGeoIP asks and serves until the context ends.
	runGeoIP func(context.Context, geoip.Config, *slog.Logger) error
	// runFetch fetches databases of places.
	runFetch func(context.Context, fetch.Config, *slog.Logger) error
	// uninstall removes what an agent leaves on the host and returns what it
	// removed, also if it had to stop with an error.
	uninstall func(context.Context, uninstallOptions) (removed []string, err error)
}

const rootLong = `podmeter meters the traffic of pods: TC programs on every pod's veth count each
packet once, and an agent turns the counts into Prometheus counters that say
which pod talked to whom, exact to the byte.

Every flag is also an environment variable, --log-level being PODMETER_LOG_LEVEL.
Exit codes: 0 fine, 1 failed, 2 wrong usage; 'podmeter verify' has 3 besides.
Documentation: https://github.com/podmeter/podmeter`

// flagUsages wraps the flags' help, which cobra does not.
const flagUsages = `.LocalFlags.FlagUsagesWrapped 100`

// root returns the command line. It writes to stdout what was asked for, and to
// stderr what went wrong.
func (c *commands) root(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "podmeter",
		Short:         "A packet-level flow meter for Kubernetes nodes",
		Long:          rootLong,
		Example:       "  podmeter agent                  # meter this host\n  podmeter status                 # ask the agent of this host\n  podmeter verify                 # compare its numbers with the kernel's\n  podmeter demo --duration 30s    # see it in a small world of its own",
		Version:       newBuild().String(),
		Args:          knownSubcommand,
		RunE:          needSubcommand,
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
	}
	root.SetOut(stdout) // before the completion is added, which keeps it
	root.SetErr(stderr)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), ".LocalFlags.FlagUsages", flagUsages, 1))
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error { return agent.FlagError(command.Flags(), err) })
	root.SetHelpCommand(helpCommand())
	root.AddCommand(c.agent(), c.demo(), c.status(), c.verify(), c.geoip(), c.uninstaller(), versionCommand())
	root.InitDefaultCompletionCmd()
	for _, command := range root.Commands() {
		if command.HasSubCommands() && !command.Runnable() { // cobra's completion, which is silent on a shell that it does not know
			command.Args, command.RunE = knownSubcommand, needSubcommand
		}
	}
	return root
}

// knownSubcommand is reached with arguments only if the first is no subcommand.
func knownSubcommand(command *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if names := command.SuggestionsFor(args[0]); len(names) > 0 {
		hint = fmt.Sprintf("; is it %q?", names[0])
	}
	return agent.Usage(fmt.Errorf("there is no subcommand %q%s", args[0], hint))
}

func needSubcommand(command *cobra.Command, _ []string) error {
	names := make([]string, 0, len(command.Commands()))
	for _, sub := range command.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return agent.Usage(errors.New("a subcommand is expected: " + strings.Join(names, ", ")))
}

// helpCommand is cobra's, except that an unknown topic is wrong usage.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(command *cobra.Command, args []string) error {
			topic, rest, err := command.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return agent.Usage(fmt.Errorf("there is no help on %q", strings.Join(args, " ")))
			}
			topic.InitDefaultHelpFlag()
			return topic.Help()
		},
	}
}

// complete makes the shell complete the values of a flag.
func complete(command *cobra.Command, flag string, values ...string) {
	if err := command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag does not exist: a mistake in this package
	}
}
