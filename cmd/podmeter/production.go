// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"log"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/demo"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip/fetch"
	"github.com/podmeter/podmeter/internal/ratelog"
	"k8s.io/klog/v2"
)

// production returns the commands as they are outside of tests.
func production(environ []string) *commands {
	return &commands{
		environ: environ, hostname: os.Hostname, now: time.Now, verifyPause: verifyPause,
		runAgent: runAgent, runDemo: runDemo, runGeoIP: runGeoIP, runFetch: fetch.Run,
		uninstall: func(_ context.Context, o uninstallOptions) ([]string, error) {
			return agent.Uninstall(o.PinPath, o.StateDir)
		},
	}
}

func runAgent(ctx context.Context, config agent.Config, log *slog.Logger) error {
	return runAgentWith(ctx, config, agent.Options{Logger: log})
}

// runAgentWith runs an agent of this build; the options may be those of tests.
func runAgentWith(ctx context.Context, config agent.Config, o agent.Options) error {
	defer forLibraries(o.Logger)()
	b := newBuild()
	o.Version, o.Revision = b.Version, b.Revision
	return agent.Run(ctx, config, o)
}

// forLibraries gives libraries a log for their own lines, limited apart from ours as their
// messages have variable texts: client-go's, and package log's, where net/http writes of
// receivers. What it returns is for the end.
func forLibraries(own *slog.Logger) (flush func()) {
	apart := ratelog.Apart(own)
	klog.SetSlogLogger(apart)
	log.SetFlags(0)
	log.SetOutput(libraryLog{apart})
	return func() { ratelog.Flush(apart) }
}

// libraryLog takes the lines of package log.
type libraryLog struct{ log *slog.Logger }

// Write implements [io.Writer].
func (l libraryLog) Write(line []byte) (int, error) {
	// What a receiver sends unasked may be what it was sent.
	text, _, _ := strings.Cut(string(line), " starting with ")
	l.log.Warn("a library says", "text", strings.TrimSpace(text))
	return len(line), nil
}

func runDemo(ctx context.Context, o demoOptions, out io.Writer) error {
	return demo.Run(ctx, demo.Options{
		Duration: o.Duration, Attach: o.Attach, Listen: o.Listen, Output: out,
		NewAgent: func(o demo.AgentOptions) (demo.Agent, error) { return newDemoAgent(ctx, o) },
	})
}

func runGeoIP(ctx context.Context, config geoip.Config, log *slog.Logger) error {
	defer forLibraries(log)()
	service, err := geoip.New(config, geoip.Options{Version: newBuild().Version, Logger: log})
	if err != nil {
		return err
	}
	return service.Run(ctx)
}
