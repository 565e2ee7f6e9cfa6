// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
)

// What helm has installed it removes, and what the agent had attached goes with it.
func TestHelmUninstallLeavesNothing(t *testing.T) {
	c := inCluster(t)
	helm := os.Getenv("PODMETER_E2E_HELM")
	if helm == "" {
		t.Skip("needs helm: make e2e")
	}
	c.servers(t)
	c.shipped(t)
	c.metered(t)
	c.kubectl(t, "", "delete", "--kustomize", base)
	c.agentEnded(t)
	c.kubectl(t, "", "create", "namespace", agentNamespace)
	c.kubectl(t, "", "label", "namespace", agentNamespace, "pod-security.kubernetes.io/enforce=privileged")
	output(t, helm, "install", "podmeter", "../../deploy/helm/podmeter", "--namespace", agentNamespace, "--wait", "--timeout", patience.String())
	ktest.AwaitWithin(t, patience, "programs on the pods' interfaces", func() string {
		if len(links(t)) == 0 {
			return "there are none"
		}
		return ""
	})
	c.leaves(t, func(t *testing.T) {
		output(t, helm, "uninstall", "podmeter", "--namespace", agentNamespace)
	}, "")
	c.kubectl(t, "", "delete", "namespace", agentNamespace)
}
