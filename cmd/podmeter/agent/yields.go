// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"github.com/podmeter/podmeter/flows/identity"
	"github.com/podmeter/podmeter/metrics"
)

// yieldStatus lists the cgroups that podmeter leaves to foreign programs.
func (a *Agent) yieldStatus() (all []YieldStatus) {
	if a.sockets != nil {
		if foreign := a.sockets.Foreign(); foreign != nil {
			all = append(all, YieldStatus{Programs: metrics.YieldedSockets, Cgroup: a.cgroups.Root(), Foreign: foreign.String()})
		}
	}
	yields := a.meter.Yields()
	if len(yields) == 0 {
		return all
	}
	pods := make(map[string]identity.LocalPod)
	for _, pod := range a.identity.cache.LocalPods() {
		pods[pod.UID] = pod
	}
	for _, y := range yields {
		pod := pods[y.UID]
		all = append(all, YieldStatus{
			Programs: metrics.YieldedHostPods, Namespace: pod.Namespace, Pod: pod.Name, Cgroup: y.Cgroup, Foreign: y.Foreign.String(),
		})
	}
	return all
}

func (a *Agent) countYields() map[string]int {
	counts := map[string]int{metrics.YieldedHostPods: len(a.meter.Yields())}
	if a.sockets != nil && a.sockets.Foreign() != nil {
		counts[metrics.YieldedSockets] = 1
	}
	return counts
}
