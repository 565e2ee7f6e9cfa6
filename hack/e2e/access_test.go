// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/ktest"
)

// account is what podmeter's pods run as.
const account = "system:serviceaccount:podmeter:podmeter"

// question is one of a SubjectAccessReview, what kubectl auth can-i asks too.
type question struct {
	Namespace   string `json:"namespace,omitempty"` // none for all
	Verb        string `json:"verb"`
	Group       string `json:"group,omitempty"`
	Resource    string `json:"resource"`
	Subresource string `json:"subresource,omitempty"`
	Name        string `json:"name,omitempty"` // none for any
}

// may asks the API server which of these podmeter's account may do, all at once.
func (c *cluster) may(t *testing.T, questions []question) []bool {
	t.Helper()
	var reviews bytes.Buffer
	for _, q := range questions {
		review := map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
			"spec": map[string]any{"user": account, "groups": []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + agentNamespace}, "resourceAttributes": q}}
		if err := json.NewEncoder(&reviews).Encode(review); err != nil {
			t.Fatal(err)
		}
		reviews.WriteString("---\n")
	}
	var answers []bool
	decoder := json.NewDecoder(bytes.NewReader(c.kubectl(t, reviews.String(), "create", "--output", "json", "--filename", "-")))
	for _, q := range questions {
		var review struct {
			Spec   struct{ ResourceAttributes question }
			Status struct{ Allowed bool }
		}
		if err := decoder.Decode(&review); err != nil || review.Spec.ResourceAttributes != q {
			t.Fatalf("got an answer to %+v, %v, want one to %+v", review, err, q)
		}
		answers = append(answers, review.Status.Allowed)
	}
	return answers
}

// The account may list and watch what tells whose an address is, and read what tells
// that it is uninstalled. Nothing else.
func TestRights(t *testing.T) {
	c := inCluster(t)
	c.shipped(t)
	verbs := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
	tests := []struct {
		name  string
		thing question
		want  []string
	}{
		{"pods", question{Resource: "pods"}, []string{"list", "watch"}},
		{"services", question{Resource: "services"}, []string{"list", "watch"}},
		{"nodes", question{Resource: "nodes"}, []string{"list", "watch"}},
		{"its own DaemonSet", question{Namespace: agentNamespace, Group: "apps", Resource: "daemonsets", Name: "podmeter"}, []string{"get"}},
		{"another DaemonSet", question{Namespace: agentNamespace, Group: "apps", Resource: "daemonsets", Name: "other"}, nil},
		{"a namesake elsewhere", question{Namespace: "default", Group: "apps", Resource: "daemonsets", Name: "podmeter"}, nil},
		{"DaemonSets", question{Group: "apps", Resource: "daemonsets"}, nil},
		{"its own namespace", question{Namespace: agentNamespace, Resource: "namespaces", Name: "podmeter"}, []string{"get"}},
		{"another namespace", question{Namespace: "default", Resource: "namespaces", Name: "default"}, nil},
		{"secrets", question{Namespace: agentNamespace, Resource: "secrets"}, nil},
		{"config maps", question{Namespace: agentNamespace, Resource: "configmaps"}, nil},
		{"a node's proxy", question{Resource: "nodes", Subresource: "proxy"}, nil},
		{"commands in pods", question{Resource: "pods", Subresource: "exec"}, nil},
		{"everything", question{Group: "*", Resource: "*"}, nil},
	}
	var questions []question
	for _, test := range tests {
		for _, verb := range verbs {
			q := test.thing
			q.Verb = verb
			questions = append(questions, q)
		}
	}
	answers := c.may(t, questions)
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for j, verb := range verbs {
				if answers[i*len(verbs)+j] {
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
	ktest.AwaitWithin(t, patience, "the agent's failure", func() string {
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
	namespace := c.servers(t)
	c.shipped(t)
	c.metered(t)
	c.kubectl(t, "", "patch", "clusterrole", "podmeter", "--type", "json", "--patch",
		`[{"op": "replace", "path": "/rules/0/resources", "value": ["services", "nodes"]}]`)
	c.kubectl(t, "", "rollout", "restart", "--namespace", agentNamespace, "daemonset/podmeter")
	ktest.AwaitWithin(t, patience, "a line that names the right", func() string {
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
	c.kubectl(t, "", "rollout", "restart", "--namespace", namespace, "deployment/web")
	ktest.AwaitWithin(t, patience, "bytes that wait for their pods", func() string {
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
