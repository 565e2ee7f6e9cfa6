// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/ktest"
)

// Whatever way podmeter leaves a node, nothing of it stays there.
func TestUninstallLeavesNothing(t *testing.T) {
	c := inCluster(t)
	c.servers(t)
	for _, test := range []struct {
		name string
		// prepare changes the DaemonSet before, if it is there.
		prepare string
		leave   func(*testing.T)
		reason  string // in the agent's log
	}{
		{"kubectl delete -k", "", func(t *testing.T) {
			c.kubectl(t, "", "delete", "--kustomize", base)
		}, ""},
		{"deletion of the DaemonSet", "", func(t *testing.T) {
			c.kubectl(t, "", "delete", "daemonset", "podmeter", "--namespace", agentNamespace)
		}, "the DaemonSet is gone"},
		{"deletion of the namespace", "", func(t *testing.T) {
			c.kubectl(t, "", "delete", "namespace", agentNamespace)
		}, ""},
		{"a node that leaves the selection", `{"nodeSelector": {"podmeter.test/metered": "yes"}}`, func(t *testing.T) {
			c.kubectl(t, "", "label", "node", c.node, "podmeter.test/metered-")
		}, "the DaemonSet does not select this node any more"},
		{"a taint that is not tolerated", `{"tolerations": null}`, func(t *testing.T) {
			c.kubectl(t, "", "taint", "node", c.node, "podmeter.test/gone=:NoExecute")
			t.Cleanup(func() { c.cleanUp(t, "taint", "node", c.node, "podmeter.test/gone:NoExecute-") })
		}, "is not tolerated"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.shipped(t)
			c.metered(t)
			if test.prepare != "" {
				c.kubectl(t, "", "label", "node", c.node, "podmeter.test/metered=yes")
				t.Cleanup(func() { c.cleanUp(t, "label", "node", c.node, "podmeter.test/metered-") })
				c.patch(t, `{"spec": {"template": {"spec": `+test.prepare+`}}}`)
				c.rolledOut(t, agentNamespace, "daemonset/podmeter")
				if len(links(t)) == 0 {
					t.Fatal("got no program attached, want some as long as the node is selected")
				}
			}
			c.leaves(t, test.leave, test.reason)
		})
	}
	t.Run("filters and qdiscs", func(t *testing.T) {
		c.shipped(t)
		c.metered(t)
		remove := func(t *testing.T) { c.kubectl(t, "", "delete", "--kustomize", base) }
		c.leaves(t, remove, "")
		shipped := string(c.kubectl(t, "", "kustomize", base))
		withFilters := strings.Replace(shipped, "        - agent\n", "        - agent\n        - --attach=netlink\n", 1)
		c.kubectl(t, withFilters, "apply", "--filename", "-")
		c.rolledOut(t, agentNamespace, "daemonset/podmeter")
		ktest.AwaitWithin(t, patience, "a qdisc on each pod's interface", func() string {
			if n := len(qdiscs(t)); n < 5 {
				return fmt.Sprint(n, " qdiscs")
			}
			return ""
		})
		c.leaves(t, remove, "")
	})
}

// leaves lets podmeter leave the node, and looks at what stays.
func (c *cluster) leaves(t *testing.T, leave func(*testing.T), reason string) {
	t.Helper()
	said := followLog(t)
	leave(t)
	c.agentEnded(t)
	ktest.AwaitWithin(t, patience, "a node without podmeter", func() string { return strings.Join(traces(t), "; ") })
	if said := said(true); !strings.Contains(said, "uninstall: programs, maps and state are removed") || !strings.Contains(said, reason) {
		t.Errorf("got no word of why, want %q; the agent said:\n%s", reason, said)
	} else {
		t.Log(said)
	}
}

// A roll-out leaves all of it: the programs are attached by the same links.
func TestRolloutLeavesAttachments(t *testing.T) {
	c := inCluster(t)
	c.servers(t)
	c.shipped(t)
	c.metered(t)
	before, said := links(t), followLog(t)
	c.kubectl(t, "", "rollout", "restart", "--namespace", agentNamespace, "daemonset/podmeter")
	c.rolledOut(t, agentNamespace, "daemonset/podmeter")
	if diff := cmp.Diff(before, links(t)); diff != "" {
		t.Errorf("links before and after (-before +after):\n%s", diff)
	}
	if said := said(true); !strings.Contains(said, "the DaemonSet still selects this node") {
		t.Errorf("got no word of staying; the agent said:\n%s", said)
	}
}

// So does an agent whose API server does not answer at its end.
func TestNoAnswerLeavesAttachments(t *testing.T) {
	c := inCluster(t)
	c.servers(t)
	c.shipped(t)
	c.metered(t)
	before, said := links(t), followLog(t)
	// The agent's way to the API server is cut off, and nobody else's here.
	const away = "10.96.0.1/32"
	output(t, "ip", "route", "add", "unreachable", away)
	back := sync.OnceFunc(func() {
		if out, err := exec.Command("ip", "route", "del", "unreachable", away).CombinedOutput(); err != nil {
			t.Errorf("take the route back: %v: %s", err, out)
		}
	})
	t.Cleanup(back)
	c.kubectl(t, "", "delete", "pod", "--namespace", agentNamespace, "--selector", agents, "--wait=false")
	if said := said(true); !strings.Contains(said, "no answer of the API server") {
		t.Errorf("got no word of staying; the agent said:\n%s", said)
	}
	if diff := cmp.Diff(before, links(t)); diff != "" {
		t.Errorf("links before and after (-before +after):\n%s", diff)
	}
	back()
	c.rolledOut(t, agentNamespace, "daemonset/podmeter")
}

// servers makes five pods, the only ones of tests, and returns their namespace.
func (c *cluster) servers(t *testing.T) (namespace string) {
	t.Helper()
	namespace = "e2e-" + strings.ToLower(t.Name())
	c.namespace(t, namespace)
	c.apply(t, namespace, "servers.yaml")
	c.rolledOut(t, namespace, "deployment/web")
	c.rolledOut(t, namespace, "statefulset/store")
	ktest.AwaitWithin(t, patience, "the end of earlier tests' pods", func() string {
		out := c.kubectl(t, "", "get", "pods", "--all-namespaces", "--output", "jsonpath={.items[*].metadata.namespace}")
		for _, of := range strings.Fields(string(out)) {
			if strings.HasPrefix(of, "e2e-") && of != namespace {
				return "there are some of " + of
			}
		}
		return ""
	})
	return namespace
}

// metered waits until programs are attached to their interfaces.
func (c *cluster) metered(t *testing.T) {
	t.Helper()
	ktest.AwaitWithin(t, patience, "programs on each pod's interface", func() string {
		if n := len(links(t)); n < 10 { // two directions
			return strings.Join(links(t), "; ")
		}
		return ""
	})
}
