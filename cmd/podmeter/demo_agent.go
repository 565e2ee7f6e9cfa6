// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/demo"
)

// demoAgent is the agent as the demo sees it: by its socket, as a user would.
type demoAgent struct {
	*agent.Agent
	client *client
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
	return &demoAgent{Agent: a, client: newClient(o.Socket)}, nil
}

// Metrics implements [demo.Agent].
func (a *demoAgent) Metrics(ctx context.Context) ([]byte, error) {
	if err := a.Drain(ctx); err != nil {
		return nil, err
	}
	return a.client.metrics(ctx)
}

// Interfaces implements [demo.Agent].
func (a *demoAgent) Interfaces(ctx context.Context) ([]demo.Interface, error) {
	status, err := a.client.status(ctx)
	if err != nil {
		return nil, err
	}
	interfaces := make([]demo.Interface, len(status.Interfaces))
	for n, i := range status.Interfaces {
		interfaces[n] = demo.Interface{
			Name: i.Name, Namespace: i.Namespace, Pod: i.Pod, State: i.State, Before: i.Before, Seeded: i.Seeded,
		}
	}
	return interfaces, nil
}
