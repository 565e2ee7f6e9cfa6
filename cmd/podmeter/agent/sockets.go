// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/identity"
	"github.com/podmeter/podmeter/metrics"
)

// findCgroups finds the node's cgroups, which containers are told by, if sockets are to be
// looked at.
func (a *Agent) findCgroups(context.Context) error {
	if a.config.Sockets == SocketsOff || a.config.Identity != IdentityKubernetes {
		return nil
	}
	root, err := datapath.CgroupRoot(a.config.CgroupRoot)
	if err != nil {
		return a.withoutSockets(Usage(fmt.Errorf("--cgroup-root: %w", err)))
	}
	a.cgroups = identity.NewCgroups(root, a.identity.cache, a.log)
	return nil
}

// openSockets attaches to the node's cgroups.
func (a *Agent) openSockets(context.Context) (err error) {
	if a.cgroups == nil {
		return a.meter.DropSockets()
	}
	a.sockets, err = a.meter.OpenSockets(datapath.SocketOptions{Cgroups: a.cgroups.Root()})
	if err != nil {
		return a.withoutSockets(err)
	}
	return nil
}

// withoutSockets goes on without them, unless they are asked for.
func (a *Agent) withoutSockets(err error) error {
	if a.config.Sockets == SocketsOn {
		return err
	}
	a.log.Warn("sockets cannot be looked at: the container of a pod with several stays empty", "error", err)
	return nil
}

// Sockets implements [flows.SocketReader].
func (a *Agent) Sockets() ([]flows.Socket, error) {
	if a.sockets == nil {
		return nil, nil
	}
	return a.sockets.Sockets()
}

// socketCounts are the sockets by what came of them, nil if they are not looked at.
func (a *Agent) socketCounts() map[string]uint64 {
	if a.sockets == nil {
		return nil
	}
	counts, err := a.sockets.Counts()
	if err != nil {
		a.log.Warn("count sockets", "error", err)
		return nil
	}
	return counts
}

// tcpEntries are the drained ends of TCP connections by what came of them, nil if sockets
// are not looked at.
func (a *Agent) tcpEntries(entries flows.HealthEntries) map[string]uint64 {
	if a.sockets == nil {
		return nil
	}
	return map[string]uint64{
		metrics.TCPAttributed: entries.Attributed, metrics.TCPNoPod: entries.NoPod, metrics.TCPUnbound: entries.Unbound,
	}
}
