// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// Agent is the meter that the demo shows. Metrics and Interfaces may be called
// while Run runs; they return an error as long as it is not ready.
type Agent interface {
	// Run meters until the context is done. It then drains for the last time,
	// detaches and removes its pins.
	Run(ctx context.Context) error
	// Metrics returns what /metrics serves, in the text format, after a drain
	// that began with the call.
	Metrics(ctx context.Context) ([]byte, error)
	// Interfaces returns the metered interfaces in no order.
	Interfaces(ctx context.Context) ([]Interface, error)
}

// Interface is a metered interface as the agent's status tells it.
type Interface struct {
	Name           string
	Namespace, Pod string // empty until it is bound
	State          string
	// Before passed before the attachment, indexed by [flows.Direction].
	Before [flows.Directions]flows.Counters
	// Seeded is whether Before is in the pod's series.
	Seeded bool
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
func (i Interface) ready() bool {
	return i.Pod != "" && (i.State == stateAttached || i.State == stateDiffers)
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
