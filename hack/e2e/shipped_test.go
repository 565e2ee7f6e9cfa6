// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

const (
	// manifests is the folder of those that are shipped, base what run.sh has applied.
	manifests = "../../deploy/kubernetes/"
	base      = manifests + "base"
	// agents selects the pods of the DaemonSet.
	agents = "app.kubernetes.io/name=podmeter,app.kubernetes.io/component=agent"
)

// shipped brings the manifests back as they are shipped, now and when the test ends.
func (c *cluster) shipped(t *testing.T) {
	t.Helper()
	c.install(t)
	t.Cleanup(func() { c.asShipped(t) })
}

// asShipped leaves of podmeter what run.sh had brought up: what is missing is made,
// and what a test has patched, which apply would leave, is replaced.
func (c *cluster) asShipped(t *testing.T) {
	c.cleanUp(t, "delete", "namespace", monitoringNamespace, "--ignore-not-found")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// An error says what there was already; if there is another, replace has it too.
	_, _ = run(ctx, "", "create", "--save-config", "--kustomize", base)
	c.cleanUp(t, "replace", "--save-config", "--kustomize", base)
	c.cleanUp(t, "rollout", "status", "--namespace", agentNamespace, "--timeout", patience.String(), "daemonset/podmeter")
}

// cleanUp runs kubectl after a test.
func (c *cluster) cleanUp(t *testing.T, args ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := run(ctx, "", args...); err != nil {
		t.Errorf("kubectl %s: %v", strings.Join(args, " "), err)
	}
}

// install applies the manifests and waits for the agent.
func (c *cluster) install(t *testing.T) {
	t.Helper()
	c.kubectl(t, "", "apply", "--kustomize", base)
	c.rolledOut(t, agentNamespace, "daemonset/podmeter")
}

// patch changes the DaemonSet.
func (c *cluster) patch(t *testing.T, strategic string) {
	t.Helper()
	c.kubectl(t, "", "patch", "daemonset", "podmeter", "--namespace", agentNamespace, "--patch", strategic)
}

// traces are what of an agent outlives it on this node, a line each: pins, state,
// attached programs and clsact qdiscs.
func traces(t *testing.T) (found []string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/bpf/podmeter/*", "/run/podmeter/*", "/run/podmeter/*/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, names...)
	}
	return append(append(found, qdiscs(t)...), links(t)...)
}

// qdiscs are the clsact qdiscs, which hold filters; nobody else makes any here.
func qdiscs(t *testing.T) (found []string) {
	t.Helper()
	for line := range strings.Lines(output(t, "tc", "qdisc", "show")) {
		if strings.Contains(line, "clsact") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// links are the programs that are attached by TCX, as the kernel tells: nobody else
// attaches any here.
func links(t *testing.T) (found []string) {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		for _, hook := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			attached, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: hook})
			if errors.Is(err, unix.ENODEV) {
				continue // it has gone
			}
			if err != nil {
				t.Fatalf("query %s: %v", i.Name, err)
			}
			for _, p := range attached.Programs {
				id, _ := p.LinkID()
				found = append(found, fmt.Sprintf("%s %v link %d", i.Name, hook, id))
			}
		}
	}
	slices.Sort(found)
	return found
}

func output(t *testing.T, command string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), command, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", command, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// agentEnded waits until no pod of the DaemonSet and no agent's process is left.
func (c *cluster) agentEnded(t *testing.T) {
	t.Helper()
	ktest.AwaitWithin(t, patience, "the agent's end", func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		pods, err := run(ctx, "", "get", "pods", "--namespace", agentNamespace, "--selector", agents, "--output", "name")
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(string(pods))
	})
}

// followLog keeps what the agent says from now on, until its container ends. The
// function returns what there is; it waits for the end if that is asked for.
func followLog(t *testing.T) (said func(wait bool) string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "kubectl", "logs", "--follow", "--tail", "1", "--namespace", agentNamespace, "daemonset/podmeter")
	var log buffer
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		command.Wait() // how it ended is in the log
	}()
	t.Cleanup(func() { <-ended })
	ktest.AwaitWithin(t, patience, "a line of the agent's log", func() string {
		if log.String() == "" {
			return "nothing was said"
		}
		return ""
	})
	return func(wait bool) string {
		if wait {
			<-ended
		}
		return log.String()
	}
}

// buffer is one that several may use.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (b *buffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(text)
}

// String returns all that was written.
func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
