// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
)

// Agent is the meter that the demo shows. All but Run may be called while it runs; they
// return an error as long as it is not ready.
type Agent interface {
	// Run meters until the context is done. It then drains for the last time,
	// detaches and removes its pins.
	Run(ctx context.Context) error
	verify.Source
}

// States of an interface, as podmeter_interfaces{state} has them. Attached and
// differs say that what passed before the attachment is known.
const (
	stateAttached = "attached"
	stateDiffers  = "differs"
	stateGone     = "gone"
)

// ready reports whether an interface is bound and what passed before its
// attachment is known.
func ready(i verify.Interface) bool {
	return i.Pod != (verify.Pod{}) && (i.State == stateAttached || i.State == stateDiffers)
}

// AgentOptions are what the demo asks of an agent.
type AgentOptions struct {
	// PinPath is a directory on a bpffs, StateDir one on a tmpfs, Socket a path
	// on it. None exists yet.
	PinPath, StateDir, Socket string
	// StaticFile is the identity: the agent runs with --identity static.
	StaticFile string
	NodeName   string
	// Attach is auto, tcx or netlink.
	Attach string
	// GeoIP are paths of MaxMind databases.
	GeoIP []string
	// Interfaces are globs; a leading ! excludes.
	Interfaces []string
	// FlowLabels and ExternalLabels are the opt-in labels of both families.
	FlowLabels, ExternalLabels []string
	// Listener is where /metrics is served. The agent closes it.
	Listener      net.Listener
	DrainInterval time.Duration
	Logger        *slog.Logger
}
