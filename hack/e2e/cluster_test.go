// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// patience is how long a condition may take to come.
const patience = 2 * time.Minute

// cluster is the node that the test runs in.
type cluster struct{ node string }

// inCluster skips a test that does not run in a node.
func inCluster(t *testing.T) *cluster {
	t.Helper()
	node := os.Getenv("PODMETER_E2E")
	if node == "" {
		t.Skip("needs a cluster: make e2e")
	}
	return &cluster{node: node}
}

// kubectl runs it and returns what it printed.
func (c *cluster) kubectl(t *testing.T, input string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := run(ctx, input, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func run(ctx context.Context, input string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, "kubectl", args...)
	var out, errs bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(input), &out, &errs
	if err := command.Run(); err != nil {
		return nil, &failure{err, strings.TrimSpace(errs.String())}
	}
	return out.Bytes(), nil
}

// failure is how a command ended and what it said.
type failure struct {
	err  error
	said string
}

// Error implements error.
func (f *failure) Error() string { return f.err.Error() + ": " + f.said }

// namespace makes one that lives as long as the test.
func (c *cluster) namespace(t *testing.T, name string) {
	t.Helper()
	c.kubectl(t, "", "create", "namespace", name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := run(ctx, "", "delete", "namespace", name); err != nil {
			t.Errorf("delete namespace %s: %v", name, err)
		}
	})
}

// apply makes the objects of a file of testdata.
func (c *cluster) apply(t *testing.T, namespace, file string) {
	t.Helper()
	c.kubectl(t, "", "apply", "--namespace", namespace, "--filename", "testdata/"+file)
}

// agentNamespace is where the manifests put podmeter.
const agentNamespace = "podmeter"

// rolledOut waits until all pods of a controller are there and ready.
func (c *cluster) rolledOut(t *testing.T, namespace, controller string) {
	t.Helper()
	c.kubectl(t, "", "rollout", "status", "--namespace", namespace, "--timeout", "110s", controller)
}

// killAgent kills the agent's process, as the node's memory killer would, and waits
// for the next one in the pod.
func (c *cluster) killAgent(t *testing.T) {
	t.Helper()
	const agent = "app.kubernetes.io/name=podmeter"
	restarts := func() string {
		return string(c.kubectl(t, "", "get", "pods", "--namespace", agentNamespace, "--selector", agent,
			"--output", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"))
	}
	before := restarts()
	if out, err := exec.CommandContext(t.Context(), "pkill", "-KILL", "-f", "^/podmeter agent ").CombinedOutput(); err != nil {
		t.Fatalf("kill the agent: %v: %s", err, out)
	}
	await(t, "another agent in the pod", func() string {
		if now := restarts(); now == before {
			return "restarted " + now + " times"
		}
		return ""
	})
	c.rolledOut(t, agentNamespace, "daemonset/podmeter")
}

// pod is what the tests need of one.
type pod struct {
	Metadata struct {
		Name   string            `json:"name"`
		UID    string            `json:"uid"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		HostNetwork bool `json:"hostNetwork"`
	} `json:"spec"`
	Status struct {
		Phase  string                `json:"phase"`
		PodIPs []struct{ IP string } `json:"podIPs"`
	} `json:"status"`
}

// pods returns those of a namespace that run and have a network of their own.
func (c *cluster) pods(t *testing.T, namespace string) (running []pod) {
	t.Helper()
	var list struct{ Items []pod }
	out := c.kubectl(t, "", "get", "pods", "--namespace", namespace, "--output", "json")
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatalf("read pods: %v", err)
	}
	for _, p := range list.Items {
		if p.Status.Phase == "Running" && !p.Spec.HostNetwork {
			running = append(running, p)
		}
	}
	return running
}

// await waits until a condition holds; why says what is still missing.
func await(t *testing.T, what string, holds func() (why string)) {
	t.Helper()
	why := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		if why = holds(); why == "" {
			return
		}
	}
	t.Fatalf("never came: %s; %s", what, why)
}

// get reads what the agent serves.
func get(t *testing.T, url string) []byte {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: got %s, %v", url, response.Status, err)
	}
	return body
}
