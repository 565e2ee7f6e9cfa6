// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	// base is the folder of the shipped manifests.
	base = "../../deploy/kubernetes/base"
	// agents selects the pods of the DaemonSet.
	agents = "app.kubernetes.io/name=podmeter,app.kubernetes.io/component=agent"
)

// shipped brings the manifests back as they are shipped, now and when the test ends.
func (c *cluster) shipped(t *testing.T) {
	t.Helper()
	c.install(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		defer cancel()
		// What a test has patched is not what apply would take back.
		for _, args := range [][]string{
			{"delete", "--ignore-not-found", "--kustomize", base},
			{"apply", "--kustomize", base},
			{"rollout", "status", "--namespace", agentNamespace, "--timeout", "110s", "daemonset/podmeter"},
		} {
			if _, err := run(ctx, "", args...); err != nil {
				t.Errorf("bring the manifests back: kubectl %s: %v", strings.Join(args, " "), err)
			}
		}
	})
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
	await(t, "the agent's end", func() string {
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
	await(t, "a line of the agent's log", func() string {
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

// scrape reads the agent's series, which may not serve any.
func scrape(t *testing.T) (series, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, os.Getenv("PODMETER_METRICS"), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	return parse(t, body), nil
}
