// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/internal/ktest"
)

// In the agent's own container podmeter verify proves its numbers: while the cluster is
// busy it ends with 0 or names what moves, and each pod whose traffic has ended comes out
// equal. With a socket where nobody answers it ends with 1.
func TestVerify(t *testing.T) {
	c := inCluster(t)
	const namespace = "e2e-verify"
	c.world(t, namespace)
	client := c.podOf(t, namespace, "client")
	streamed := c.background(t, namespace, client.Metadata.Name,
		"stream", net.JoinHostPort(c.service(t, namespace, "echo")[0], "7"), "20")
	report := c.verify(t)
	checkVerified(t, report)
	t.Logf("while busy: %s", report.Conclusion())
	streamed()

	pending := make(map[string]bool)
	for _, p := range c.pods(t, namespace) {
		pending[p.Metadata.Name] = true
	}
	if len(pending) < 3 {
		t.Fatalf("got %d pods, want 3 at least", len(pending))
	}
	ktest.AwaitWithin(t, patience, "each pod is judged and equal", func() (why string) {
		report := c.verify(t)
		checkVerified(t, report)
		for name, why := range equalPods(report, namespace) {
			if why == "" {
				delete(pending, name)
			}
		}
		if len(pending) == 0 {
			return ""
		}
		return fmt.Sprintf("%v are not; %s", pending, report.Conclusion())
	})
	if code, out := c.runVerify(t, "--socket", "/nowhere/agent.sock"); code != 1 {
		t.Errorf("with a wrong socket: got code %d, want 1: %s", code, out)
	}
}

// checkVerified wants a report without a fault, that names what it could not judge.
func checkVerified(t *testing.T, report *verify.Report) {
	t.Helper()
	for _, fault := range report.Faults() {
		t.Error(fault)
	}
	undecided := 0
	for _, row := range report.Rows {
		switch row.Verdict {
		case verify.Moving, verify.Settling, verify.Unknown:
			undecided++
		}
	}
	if (report.Code == verify.CodeUndecided) != (undecided > 0) || report.Code == verify.CodeUnequal {
		t.Errorf("got code %d with %d rows that could not be judged", report.Code, undecided)
	}
}

// equalPods says of each pod of a namespace that has an interface why not all of its rows
// are equal; empty if they are.
func equalPods(report *verify.Report, namespace string) map[string]string {
	pods := make(map[string]string)
	for _, row := range report.Rows {
		if row.Namespace != namespace {
			continue
		}
		if _, known := pods[row.Pod]; !known {
			pods[row.Pod] = ""
		}
		if row.Verdict != verify.Equal || row.Podmeter.Packets == 0 && row.Direction == "transmit" {
			pods[row.Pod] = fmt.Sprintf("%+v", row)
		}
	}
	return pods
}

// verify runs podmeter verify in the agent's container, and reads its report.
func (c *cluster) verify(t *testing.T) *verify.Report {
	t.Helper()
	code, out := c.runVerify(t, "--output", "json")
	report := &verify.Report{}
	if err := json.Unmarshal(out, report); err != nil {
		t.Fatalf("read the report of podmeter verify, which ended with %d: %v: %s", code, err, out)
	}
	if report.Code != code {
		t.Errorf("got code %d, and %d in the report", code, report.Code)
	}
	return report
}

// runVerify returns the exit code, which kubectl passes on, and what was printed.
func (c *cluster) runVerify(t *testing.T, args ...string) (code int, out []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, "kubectl", append([]string{
		"exec", "--namespace", agentNamespace, "daemonset/podmeter", "--", "/podmeter", "verify"}, args...)...)
	var errs bytes.Buffer
	command.Stderr = &errs
	out, err := command.Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run podmeter verify: %v", err)
	}
	if command.ProcessState.ExitCode() != 0 {
		t.Logf("podmeter verify: %s", bytes.TrimSpace(errs.Bytes()))
	}
	return command.ProcessState.ExitCode(), out
}
