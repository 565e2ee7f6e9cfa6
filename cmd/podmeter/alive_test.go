// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
)

// A drain that hangs, here as the disk of its checkpoint does, is what --alive reports, and
// nothing else.
func TestStuckIsNotAlive(t *testing.T) {
	effort.Long(t, "waits for half a minute")
	t.Parallel()
	h := newHost(t)
	p := start(t, h.node, nil, h.flags()...)
	h.awaitAttached(t, p)
	probe := func(flag string) (int, string) {
		s := start(t, h.node, nil, "status", flag, "--socket", h.sock)
		return s.end(t), s.output.String()
	}
	if code, said := probe("--alive"); code != 0 {
		t.Errorf("an agent at work: got %d and %q, want 0", code, said)
	}
	ktest.BlockOpens(t, filepath.Join(h.dir, "state"))
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		code, said := probe("--alive")
		if code == 1 && strings.Contains(said, "is stuck: the last drain ended") {
			break
		}
		if code != 0 || time.Now().After(deadline) {
			t.Fatalf("got %d and %q, want 0, and after a while 1 and why", code, said)
		}
	}
	if code, _ := probe("--ready"); code != 0 {
		t.Errorf("ready: got %d, want 0: what it serves was true", code)
	}
	p.Process.Kill()
	p.end(t)
}

// An agent is ready when it can answer, however rarely it drains; who waits for that, from
// before it is started, hears no "no".
func TestReadyBeforeTheFirstInterval(t *testing.T) {
	h := newHost(t)
	asked := start(t, h.node, nil, "status", "--ready", "--wait", "60s", "--socket", h.sock)
	p := start(t, h.node, nil, h.flags("--drain-interval", "10m", "--uplinks", "up*")...)
	if code := asked.end(t); code != 0 || !strings.HasPrefix(asked.output.String(), "ready\n") {
		t.Errorf("got %d and %q, want 0 and that it is ready; the agent said:\n%s", code, &asked.output, &p.output)
	}
	status := h.await(t, p, "a status", func(*agent.Status) bool { return true })
	if len(status.Interfaces) != 1 || status.Drain.Count != 1 {
		t.Errorf("got %d interfaces and %d drains, want one of each", len(status.Interfaces), status.Drain.Count)
	}
	p.terminate(t)
}
