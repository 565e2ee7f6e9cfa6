// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const account = "--as=system:serviceaccount:podmeter:podmeter"

// may asks the API server whether podmeter's account may do something.
func (c *cluster) may(t *testing.T, question ...string) bool {
	t.Helper()
	// The exit code of a no is 1.
	out, err := run(t.Context(), "", append([]string{"auth", "can-i", account}, question...)...)
	answer := strings.TrimSpace(string(out))
	if err != nil && !strings.Contains(err.Error(), "exit status 1") {
		t.Fatalf("ask for %q: %v", question, err)
	}
	return answer == "yes"
}

// The account may list and watch what tells whose an address is, and read what tells
// that it is uninstalled. Nothing else.
func TestRights(t *testing.T) {
	c := inCluster(t)
	c.shipped(t)
	verbs := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
	for _, test := range []struct {
		name  string
		scope []string
		thing string
		want  []string
	}{
		{"pods", []string{"--all-namespaces"}, "pods", []string{"list", "watch"}},
		{"services", []string{"--all-namespaces"}, "services", []string{"list", "watch"}},
		{"nodes", nil, "nodes", []string{"list", "watch"}},
		{"its own DaemonSet", []string{"--namespace", agentNamespace}, "daemonsets.apps/podmeter", []string{"get"}},
		{"another DaemonSet", []string{"--namespace", agentNamespace}, "daemonsets.apps/other", nil},
		{"a namesake elsewhere", []string{"--namespace", "default"}, "daemonsets.apps/podmeter", nil},
		{"DaemonSets", []string{"--all-namespaces"}, "daemonsets.apps", nil},
		{"its own namespace", nil, "namespaces/podmeter", []string{"get"}},
		{"another namespace", nil, "namespaces/default", nil},
		{"secrets", []string{"--namespace", agentNamespace}, "secrets", nil},
		{"config maps", []string{"--namespace", agentNamespace}, "configmaps", nil},
		{"a node's proxy", []string{"--subresource", "proxy"}, "nodes", nil},
		{"commands in pods", []string{"--all-namespaces", "--subresource", "exec"}, "pods", nil},
		{"everything", []string{"--all-namespaces"}, "*.*", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, verb := range verbs {
				if c.may(t, append(test.scope, verb, test.thing)...) {
					got = append(got, verb)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// ended waits until the agent's container has ended, and returns its exit code and
// what the pod's status says of it.
func (c *cluster) ended(t *testing.T) (code, message string) {
	t.Helper()
	await(t, "the agent's failure", func() string {
		for _, state := range []string{"state", "lastState"} {
			at := "{range .items[*].status.containerStatuses[*]}{." + state + ".terminated.exitCode}{'\\n'}{." + state + ".terminated.message}{end}"
			out := c.kubectl(t, "", "get", "pods", "--namespace", agentNamespace, "--selector", agents, "--output", "jsonpath="+at)
			first, rest, _ := strings.Cut(string(out), "\n")
			if first != "" && first != "0" {
				code, message = first, strings.TrimSpace(rest)
				return ""
			}
		}
		return "it has not failed"
	})
	return code, message
}

// What a manifest lacks is what a user reads first of a pod that does not start.
func TestFaultsOfManifests(t *testing.T) {
	c := inCluster(t)
	const container = `{"spec": {"template": {"spec": {"containers": [{"name": "agent", %s}]}}}}`
	for _, test := range []struct {
		name, patch string
		code        string
		want, last  string
	}{
		{"no node name", `"env": [{"name": "NODE_NAME", "$patch": "delete"}]`, "2", "fieldRef spec.nodeName", "see 'podmeter agent --help'"},
		{"unknown node", `"env": [{"name": "NODE_NAME", "value": "nowhere", "valueFrom": null}]`, "2",
			`--node-name "nowhere": the API server has no such node`, "see 'podmeter agent --help'"},
		{"no capability", `"securityContext": {"capabilities": {"add": ["PERFMON", "NET_ADMIN"]}}`, "1",
			"missing capability: CAP_BPF", "podmeter: in the pod's manifest, the container's securityContext needs "},
		{"no bpffs", `"volumeMounts": [{"mountPath": "/bpf/podmeter", "$patch": "delete"}]`, "2",
			"no BPF file system at /bpf/podmeter", "podmeter: in the pod's manifest, volumes needs hostPath: {path: /sys/fs/bpf/podmeter"},
		{"nowhere to write", `"volumeMounts": [{"mountPath": "/run/podmeter", "$patch": "delete"}]`, "1",
			"nothing can be written there", "podmeter: in the pod's manifest, volumes needs hostPath: {path: /run/podmeter"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.shipped(t)
			c.patch(t, fmt.Sprintf(container, test.patch))
			code, message := c.ended(t)
			lines := strings.Split(message, "\n")
			if last := lines[len(lines)-1]; code != test.code || !strings.Contains(message, test.want) || !strings.HasPrefix(last, test.last) {
				t.Errorf("got exit code %s and at last %q, want %s, %q, and %q in:\n%s", code, last, test.code, test.last, test.want, message)
			}
		})
	}
}

// Without the right to list pods the agent counts on, is not ready, and says what it
// lacks. With it, it goes on.
func TestNoRightToListPods(t *testing.T) {
	c := inCluster(t)
	c.shipped(t)
	c.metered(t)
	c.kubectl(t, "", "patch", "clusterrole", "podmeter", "--type", "json", "--patch",
		`[{"op": "replace", "path": "/rules/0/resources", "value": ["services", "nodes"]}]`)
	c.kubectl(t, "", "rollout", "restart", "--namespace", agentNamespace, "daemonset/podmeter")
	await(t, "a line that names the right", func() string {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		out, err := run(ctx, "", "logs", "--namespace", agentNamespace, "daemonset/podmeter")
		if err != nil {
			return err.Error()
		}
		if strings.Contains(string(out), "no right to list pods: grant list and watch") {
			return ""
		}
		return string(out)
	})
	// The pods that it knew stay bound; those of new ones are not known.
	c.kubectl(t, "", "rollout", "restart", "--namespace", "e2e-uninstall", "deployment/web")
	await(t, "bytes that wait for their pods", func() string {
		s, err := scrape(t.Context())
		if err != nil {
			return err.Error()
		}
		if s.sum("podmeter_unbound_bytes") == 0 {
			return "there are none"
		}
		return ""
	})
	if out := c.kubectl(t, "", "get", "pods", "--namespace", agentNamespace, "--selector", agents,
		"--output", "jsonpath={.items[*].status.containerStatuses[*].ready}"); string(out) != "false" {
		t.Errorf("ready: got %s, want false", out)
	}
	c.install(t)
}
