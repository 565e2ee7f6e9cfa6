// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/podmeter/podmeter/cmd/podmeter/daemonset"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/identity"
)

// departure decides whether what outlives the agent is removed at its end. A nil one
// lets everything stay.
type departure struct {
	config Config
	own    *daemonset.Own
	log    *slog.Logger
	// uninstall is the decision.
	uninstall bool
}

func (a *Agent) openDeparture(context.Context) (err error) {
	if a.config.DaemonSet == "" {
		return nil
	}
	client := a.identity.client
	if client == nil {
		if client, err = identity.NewClient(a.config.Kubeconfig, "podmeter/"+a.options.Version); err != nil {
			return Usage(fmt.Errorf("--daemonset %s: %w", a.config.DaemonSet, err))
		}
	}
	namespace, name := a.config.daemonSet()
	a.departure = &departure{config: a.config, log: a.log, own: daemonset.New(daemonset.Options{
		Client: client, Namespace: namespace, Name: name, Node: a.config.NodeName,
		Ending: a.podsEnding, Logger: a.log,
	})}
	return nil
}

// podsEnding reports whether this node's agents have been told to end, as far as the
// API server has told. Without it nothing is known.
func (a *Agent) podsEnding() bool {
	if a.config.Identity != IdentityKubernetes || !a.identity.source.Status().Synced {
		return false
	}
	namespace, name := a.config.daemonSet()
	return a.identity.cache.Ending(namespace, flows.Workload{Type: "daemonset", Name: name})
}

// learn gets to know the DaemonSet.
func (d *departure) learn(ctx context.Context) error {
	if d != nil {
		d.own.Learn(ctx)
	}
	return nil
}

// decide finds out what the end is for.
func (d *departure) decide(ctx context.Context) {
	if d == nil {
		return
	}
	verdict := d.own.Verdict(ctx)
	d.uninstall = verdict.Uninstall
	what := "programs, maps and state stay on this node, which goes on counting"
	if verdict.Uninstall {
		what = "uninstall: programs, maps and state are removed from this node"
	}
	d.log.Info(what, "daemonset", d.own.String(), "reason", verdict.Why)
}

// leave removes what outlives a closed agent, if that was decided.
func (d *departure) leave() error {
	if d == nil || !d.uninstall {
		return nil
	}
	removed, err := Uninstall(d.config.PinPath, d.config.StateDir)
	d.log.Info("uninstalled", "removed", len(removed))
	if err != nil {
		return fmt.Errorf("uninstall: %w", err)
	}
	return nil
}
