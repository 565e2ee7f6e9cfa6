// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
)

// A pod that floods random addresses and ports has exact series, and so have its
// neighbours, whose flows keep their names; the agent stays within its limits.
func TestParityBesideAFlood(t *testing.T) {
	c := inCluster(t)
	const namespace = "e2e-noisy"
	c.world(t, namespace)
	internet(t)
	flooder := c.podOf(t, namespace, "client").Metadata.Name
	restarts := c.restarts(t)
	seconds := "15"
	if long {
		seconds = "60"
	}
	before := c.podmeter(t)

	c.exchange(t, "e2e-neighbours", outage, func() {
		t.Logf("flood: %s", c.traffic(t, namespace, flooder, "flood", seconds,
			"198.51.100.0/24", "203.0.113.0/24", "2001:db8:ffff::/64", "10.244.0.0/24"))
	})
	pending := map[string]bool{flooder: true}
	ktest.AwaitWithin(t, patience, "equal counts of the flooder", func() string { return c.parity(t, namespace, pending) })
	c.checkIdentities(t, namespace, 3)

	s := c.podmeter(t)
	for _, p := range c.pods(t, "e2e-neighbours") {
		for r := range s.flows("e2e-neighbours", p.Metadata.Name) {
			if r.peer == "other" {
				t.Errorf("%s: got a row %+v beside a flood", p.Metadata.Name, r)
			}
		}
	}
	for _, lacking := range []string{"podmeter_residue_bytes_total", "podmeter_unplaced_bytes_total"} {
		if got, want := s.sum(lacking), before.sum(lacking); got != want {
			t.Errorf("%s: got %.0f, want %.0f as before: flows without a name", lacking, got, want)
		}
	}
	if now := c.restarts(t); now != restarts {
		t.Errorf("agent: got restarts %s, want %s as before", now, restarts)
	}
	t.Logf("agent: %.0f MB resident, %.1f s of CPU", s.sum("process_resident_memory_bytes")/1e6, s.sum("process_cpu_seconds_total")-before.sum("process_cpu_seconds_total"))
	c.checkMemory(t)
}

// checkMemory compares the agent's container with its limit.
func (c *cluster) checkMemory(t *testing.T) {
	t.Helper()
	s := c.kubelet(t)
	agent := []string{"namespace", agentNamespace, "container", "agent"}
	limit := s.sum("container_spec_memory_limit_bytes", agent...)
	most := s.sum("container_memory_max_usage_bytes", agent...)
	if limit == 0 || most == 0 || most >= limit {
		t.Errorf("agent's memory: got at most %.0f bytes, want less than the limit of %.0f", most, limit)
	}
	t.Logf("agent's container: at most %.0f of %.0f MB", most/1e6, limit/1e6)
}
