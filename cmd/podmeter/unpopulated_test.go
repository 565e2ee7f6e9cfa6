// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/kubetest"
)

// A pod in the node's network whose processes are elsewhere than in its cgroup is not taken
// for one that sends nothing.
func TestAgentNamesPodsWithoutProcesses(t *testing.T) {
	effort.Long(t, "a cgroup has to be without a process for 30 s")
	t.Parallel()
	ktest.Privileged(t)
	server := kubetest.Start(t)
	h := newHost(t)
	makePod(t, server)
	cgroup := makeHostPod(t, server, ktest.NewCgroup(t))
	flags := h.flags("--identity", "kubernetes", "--kubeconfig", gateInto(t, h.node, server), "--node-name", "here", "--sockets", "off")
	p := start(t, h.node, nil, flags...)
	h.await(t, p, "the pod is metered", func(s *agent.Status) bool {
		for _, i := range s.Interfaces {
			if i.Attachment == "cgroup" && i.Pod == "proxy" {
				return true
			}
		}
		return false
	})
	h.awaitMetrics(t, p, `podmeter_pods{state="host_network"} 0`, `podmeter_unpopulated_pods 0`)
	status := h.await(t, p, "the pod is named", func(s *agent.Status) bool { return len(s.Unpopulated) > 0 })
	if got := status.Unpopulated[0]; got.Namespace != "ns" || got.Pod != "proxy" || !got.HostNetwork || got.Cgroup != cgroup.Path {
		t.Errorf("got %+v, want the pod ns/proxy at %s", got, cgroup.Path)
	}
	h.awaitMetrics(t, p, `podmeter_pods{state="host_network"} 1`, `podmeter_unpopulated_pods 1`)
	p.terminate(t)
	if got := strings.Count(p.output.String(), "no process in the cgroup of a running pod"); got != 1 {
		t.Errorf("got %d lines about it, want 1:\n%s", got, p.output.String())
	}
}

// awaitMetrics waits until each of these lines is in the exposition.
func (h *host) awaitMetrics(t *testing.T, p *process, lines ...string) {
	t.Helper()
	for _, line := range lines {
		h.await(t, p, line, func(*agent.Status) bool {
			return strings.Contains("\n"+string(h.scrape(t, "/metrics")), "\n"+line+"\n")
		})
	}
}
