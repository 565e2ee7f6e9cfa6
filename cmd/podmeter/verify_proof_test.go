// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
)

// proof is what podmeter verify said on a host.
type proof struct {
	code           int
	stdout, stderr bytes.Buffer
	report         verify.Report
}

// verify runs podmeter verify on the node, as somebody there would.
func (h *host) verify(t *testing.T) *proof {
	t.Helper()
	p := h.verifying(t, "-o", "json")
	if p.code == 2 || p.stdout.Len() == 0 {
		t.Fatalf("got code %d, %s%s", p.code, &p.stdout, &p.stderr)
	}
	if err := json.Unmarshal(p.stdout.Bytes(), &p.report); err != nil {
		t.Fatalf("read the report: %v: %s", err, &p.stdout)
	}
	if p.report.Code != p.code {
		t.Errorf("got code %d, and %d in the report", p.code, p.report.Code)
	}
	return p
}

// verifying runs podmeter verify with these arguments.
func (h *host) verifying(t *testing.T, args ...string) *proof {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &proof{}
	command := exec.CommandContext(t.Context(), self, append([]string{"verify", "--socket", h.sock}, args...)...)
	command.Env = append(os.Environ(), asPodmeter+"=1")
	command.Stdout, command.Stderr = &p.stdout, &p.stderr
	if err := h.node.Do(command.Start); err != nil {
		t.Fatalf("start podmeter verify: %v", err)
	}
	_ = command.Wait() // the code is the caller's to judge
	p.code = command.ProcessState.ExitCode()
	return p
}

// row returns a direction of an interface.
func (p *proof) row(t *testing.T, name string, d flows.Direction) verify.Row {
	t.Helper()
	for _, row := range p.report.Rows {
		if row.Interface == name && row.Direction == d.String() {
			return row
		}
	}
	t.Fatalf("no row of %s, %s: %s", name, d, &p.stdout)
	return verify.Row{}
}

// check wants a verdict in both directions of an interface, of at least so many packets
// that podmeter exports, and the code 0.
func (p *proof) check(t *testing.T, name string, verdict [flows.Directions]verify.Verdict, packets uint64) {
	t.Helper()
	for d := range flows.Direction(flows.Directions) {
		row := p.row(t, name, d)
		if row.Verdict != verdict[d] || row.Podmeter.Packets < packets {
			t.Errorf("%s, %v: got %+v, want it %s, with %d packets at least", name, d, row, verdict[d], packets)
		}
	}
	if p.code != verify.CodeEqual || len(p.report.Faults()) > 0 {
		t.Errorf("got code %d and faults %q, want %d and none", p.code, p.report.Faults(), verify.CodeEqual)
	}
}

var bothEqual = [flows.Directions]verify.Verdict{verify.Equal, verify.Equal}

// exchange sends datagrams both ways.
func (h *host) exchange(t *testing.T, transmit, receive int) {
	t.Helper()
	h.pod.Send(t, "198.51.100.1:9", 100, transmit)
	h.node.Send(t, "198.51.100.2:9", 100, receive)
}

// resting are flags of an agent that drains when it is asked to.
func (h *host) resting(more ...string) []string {
	return h.flags(append([]string{"--drain-interval", "10m"}, more...)...)
}

// awaitMetered waits until an agent that rests meters veth0 in some state.
func (h *host) awaitMetered(t *testing.T, p *process) {
	t.Helper()
	h.await(t, p, "veth0 is metered and settled", func(s *agent.Status) bool {
		return len(s.Interfaces) > 0 && s.Interfaces[0].State != "settling"
	})
}

// watch is podmeter verify --watch at work. What it says goes to a file.
type watch struct {
	*exec.Cmd
	output string
}

// watch starts one on the node.
func (h *host) watch(t *testing.T) *watch {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.CreateTemp(h.dir, "watch")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := &watch{exec.Command(self, "verify", "--socket", h.sock, "--watch"), file.Name()}
	w.Env = append(os.Environ(), asPodmeter+"=1")
	w.Stdout, w.Stderr = file, file
	if err := h.node.Do(w.Start); err != nil {
		t.Fatalf("start podmeter verify: %v", err)
	}
	t.Cleanup(func() {
		if w.ProcessState == nil {
			w.Process.Kill()
			w.Wait()
		}
	})
	return w
}

// said returns what it has said until now.
func (w *watch) said(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(w.output)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// await waits until it has said something so often.
func (w *watch) await(t *testing.T, what string, times int) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); strings.Count(w.said(t), what) < times; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %q %d times; it said:\n%s", what, times, w.said(t))
		}
	}
}

// interrupt ends it as Ctrl-C does, and returns its exit code.
func (w *watch) interrupt(t *testing.T) int {
	t.Helper()
	if err := w.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(30*time.Second, func() { w.Process.Kill() })
	defer timer.Stop()
	w.Wait() // the code is the caller's to judge
	return w.ProcessState.ExitCode()
}
