// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
)

// patience is how long a condition may take to come.
const patience = 5 * time.Minute

// long is whether the long forms are wanted.
var long = os.Getenv("PODMETER_E2E_LONG") != ""

// outage is how long a component is away.
var outage = map[bool]time.Duration{false: 30 * time.Second, true: 2 * time.Minute}[long]

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

// namespace makes one that lives as long as the test, and some seconds of the next: each
// has a name that no other test's has.
func (c *cluster) namespace(t *testing.T, name string) {
	t.Helper()
	c.kubectl(t, "", "create", "namespace", name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := run(ctx, "", "delete", "namespace", name, "--wait=false"); err != nil {
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
	c.kubectl(t, "", "rollout", "status", "--namespace", namespace, "--timeout", patience.String(), controller)
}

// completed waits until a Job has done its work.
func (c *cluster) completed(t *testing.T, namespace, job string) {
	t.Helper()
	c.kubectl(t, "", "wait", "--namespace", namespace, "--for", "condition=Complete", "--timeout", patience.String(), "job/"+job)
}

// killAgent kills the agent's process, as the node's memory killer would, and waits
// for the next one in the pod.
func (c *cluster) killAgent(t *testing.T) {
	t.Helper()
	before := c.restarts(t)
	if out, err := exec.CommandContext(t.Context(), "pkill", "-KILL", "-f", "^/podmeter agent ").CombinedOutput(); err != nil {
		t.Fatalf("kill the agent: %v: %s", err, out)
	}
	ktest.AwaitWithin(t, patience, "another agent in the pod", func() string {
		if now := c.restarts(t); now == before {
			return "restarted " + now + " times"
		}
		return ""
	})
	c.rolledOut(t, agentNamespace, "daemonset/podmeter")
}

// restarts says how often the agent's container was started again.
func (c *cluster) restarts(t *testing.T) string {
	t.Helper()
	return string(c.kubectl(t, "", "get", "pods", "--namespace", agentNamespace, "--selector", agents,
		"--output", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"))
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
	for _, p := range c.allPods(t, namespace) {
		if p.Status.Phase == "Running" && !p.Spec.HostNetwork {
			running = append(running, p)
		}
	}
	return running
}

// allPods returns those of a namespace.
func (c *cluster) allPods(t *testing.T, namespace string, args ...string) []pod {
	t.Helper()
	var list struct{ Items []pod }
	out := c.kubectl(t, "", append([]string{"get", "pods", "--namespace", namespace, "--output", "json"}, args...)...)
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatalf("read pods: %v", err)
	}
	return list.Items
}

// fetch reads what an address serves.
func fetch(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, response.Status)
	}
	return body, err
}
