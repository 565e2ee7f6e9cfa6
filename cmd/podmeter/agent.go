// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/flows/plain"
	"github.com/podmeter/podmeter/internal/ratelog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const agentLong = `Meter the interfaces of this host until SIGINT or SIGTERM comes, and serve what
they carried as Prometheus metrics. SIGHUP reads files again.

Without flags every veth whose other end is in another network namespace is
metered: the interfaces of all pods. Inside a Kubernetes cluster the API server
tells which pod and which peer has which address; elsewhere a file can
(--static-file), or pods are named after their interfaces.

With --uplinks the interfaces that lead out of the node are metered too, on
series of their own: podmeter_uplink_*.

Settings come from flags, from the environment (--drain-interval is
PODMETER_DRAIN_INTERVAL) and from a YAML file (--config, with keys such as
drain-interval), and count in this order. Several values are separated by
commas; in the file they may be a list:

  drain-interval: 5s
  flow-labels: [peer_port]
  interfaces: ["veth*", "!veth0"]

It needs Linux 5.15 or later and root, or the capabilities BPF, NET_ADMIN and PERFMON.
When it ends, programs and maps stay and the next agent goes on with them;
'podmeter uninstall' removes them.
What the metrics mean: https://github.com/podmeter/podmeter/blob/main/docs/METRICS.md`

const agentExample = `  podmeter agent
  podmeter agent --geoip /var/lib/GeoIP/GeoLite2-City.mmdb --external-labels city
  podmeter agent --uplinks 'eth0,bond*'
  podmeter agent --identity static --static-file /etc/podmeter/pods.yaml --interfaces 'veth*,!veth0'
  podmeter agent --config /etc/podmeter/podmeter.yaml --log-format json
  PODMETER_LISTEN=127.0.0.1:9739 podmeter agent`

func (c *commands) agent() *cobra.Command {
	config := agent.Defaults()
	command := &cobra.Command{
		Use:     "agent",
		Short:   "Meter the interfaces of this host",
		Long:    agentLong,
		Example: agentExample,
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			return c.meter(command, &config)
		},
	}
	command.Flags().SortFlags = false
	agent.AddFlags(command.Flags(), &config)
	completeChoices(command)
	complete(command, "flow-labels", "peer_pod", "peer_ip", "peer_port", "process")
	complete(command, "external-labels", "city", "latitude", "longitude", "ip", "container")
	return command
}

// completeChoices completes the flags that take one of a few values.
func completeChoices(command *cobra.Command) {
	command.Flags().VisitAll(func(flag *pflag.Flag) {
		if choices := agent.Choices(flag.Name); choices != nil {
			complete(command, flag.Name, choices...)
		}
	})
}

func (c *commands) meter(command *cobra.Command, config *agent.Config) error {
	warnings, err := agent.Load(command.Flags(), c.environ)
	if err != nil {
		return err
	}
	if err := config.Complete(c.environ, c.hostname); err != nil {
		return err
	}
	if err := config.Validate(); err != nil {
		return err
	}
	log, err := newLogger(command.ErrOrStderr(), config.LogLevel, config.LogFormat, warnings)
	if err != nil {
		return err
	}
	defer ratelog.Flush(log)
	return c.inManifest(config, c.runAgent(command.Context(), *config, log))
}

// manifestError is one that a pod's manifest is at fault for.
type manifestError struct {
	error
	change string // what it has to have
}

// Unwrap returns the error.
func (e *manifestError) Unwrap() error { return e.error }

// inManifest adds to an error of a pod's agent what to change in the manifest.
func (c *commands) inManifest(config *agent.Config, err error) error {
	if err == nil || !agent.InPod(c.environ) {
		return err
	}
	if change := config.InManifest(err); change != "" {
		return &manifestError{err, change}
	}
	return err
}

// newLogger returns a logger that writes to w, first of all the warnings. It is limited by
// package ratelog, as others cause most lines; [ratelog.Flush] is for its end.
func newLogger(w io.Writer, level, format string, warnings []string) (*slog.Logger, error) {
	options := slog.HandlerOptions{ReplaceAttr: plain.Attr}
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, agent.Usage(fmt.Errorf("--log-level: %w", err))
	}
	options.Level = least
	var handler slog.Handler = slog.NewTextHandler(w, &options)
	if format == "json" {
		handler = slog.NewJSONHandler(w, &options)
	}
	log := slog.New(ratelog.New(handler))
	for _, warning := range warnings {
		log.Warn(warning)
	}
	return log, nil
}
