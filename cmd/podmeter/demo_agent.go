// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/demo"
)

// demoPatience is how long the demo's agent may take to answer: it shares a machine that may
// be small with all of the demo's pods.
const demoPatience = time.Minute

// demoAgent is the agent as the demo sees it: by its socket, as a user would.
type demoAgent struct {
	agent *agent.Agent
	agentSource
}

func newDemoAgent(ctx context.Context, o demo.AgentOptions) (demo.Agent, error) {
	config := agent.Defaults()
	config.PinPath, config.StateDir, config.Socket = o.PinPath, o.StateDir, o.Socket
	config.Identity, config.StaticFile, config.NodeName = agent.IdentityStatic, o.StaticFile, o.NodeName
	config.Attach, config.Interfaces, config.GeoIP = o.Attach, o.Interfaces, o.GeoIP
	config.FlowLabels, config.ExternalLabels = o.FlowLabels, o.ExternalLabels
	config.DrainInterval, config.Page = o.DrainInterval, true
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("configure the demo's agent: %w", err)
	}
	b := newBuild()
	a, err := agent.New(ctx, config, agent.Options{
		Version: b.Version, Revision: b.Revision, Listener: o.Listener, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	client := newClient(o.Socket)
	client.patience = demoPatience
	return &demoAgent{a, agentSource{client}}, nil
}

// Run implements [demo.Agent].
func (a *demoAgent) Run(ctx context.Context) error { return a.agent.Run(ctx) }
