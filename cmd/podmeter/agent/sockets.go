// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/metrics"
)

// openSockets attaches to the node's cgroups.
func (a *Agent) openSockets(context.Context) (err error) {
	if a.cgroups == nil || a.config.Sockets == ModeOff {
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
	return a.goWithout(a.config.Sockets, "sockets cannot be looked at: the container of a pod with several stays empty", err)
}

// Sockets implements [flows.SocketReader].
func (a *Agent) Sockets(begin func(), visit func(*flows.Socket)) error {
	if a.sockets == nil {
		begin()
		return nil
	}
	return a.sockets.Sockets(begin, visit)
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
