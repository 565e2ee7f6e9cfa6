// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/demo"
	"github.com/spf13/cobra"
)

// demoOptions are the flags of the demo.
type demoOptions struct {
	// Duration is how long it goes on, the reconciliation not counted.
	Duration time.Duration
	// Attach is auto, tcx or netlink.
	Attach string
	// Listen is the host:port of /metrics.
	Listen string
}

const demoLong = `Run the real agent on a small world that it makes for itself: network namespaces
as pods, and one that plays the internet, with TCP, UDP, ICMP and IPv6 traffic
between them. A table shows who talks to whom; meanwhile the agent's page for a
browser and /metrics are served.

At the end podmeter's bytes and packets stand beside the kernel's own counters of
each interface; if all are equal the exit code is 0, else 1. Nothing is left
behind, and nothing of the host is metered or changed. It needs root.`

func (c *commands) demo() *cobra.Command {
	var options demoOptions
	command := &cobra.Command{
		Use:     "demo",
		Short:   "See podmeter at work in a small world of its own",
		Long:    demoLong,
		Example: "  sudo podmeter demo --duration 30s\n  curl -s 127.0.0.1:9739/metrics    # meanwhile, elsewhere",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			if _, err := agent.Load(command.Flags(), c.environ); err != nil {
				return err
			}
			if err := options.validate(); err != nil {
				return err
			}
			return c.runDemo(command.Context(), options, command.OutOrStdout())
		},
	}
	fs := command.Flags()
	fs.DurationVar(&options.Duration, "duration", 30*time.Second, "how long traffic flows")
	fs.StringVar(&options.Attach, "attach", "auto", "`mode` of attaching programs: "+strings.Join(agent.Choices("attach"), ", "))
	fs.StringVar(&options.Listen, "listen", "127.0.0.1:9739", "`host:port` to serve the page and /metrics on")
	completeChoices(command)
	return command
}

func (o demoOptions) validate() error {
	var faults []error
	if o.Duration < demo.MinDuration {
		faults = append(faults, agent.NewFault("duration", o.Duration, "at least %v is expected, for pods to come and to go", demo.MinDuration))
	}
	faults = append(faults, agent.CheckChoice("attach", o.Attach), agent.CheckListen(o.Listen, "127.0.0.1:9739"))
	return agent.Usage(errors.Join(faults...))
}
