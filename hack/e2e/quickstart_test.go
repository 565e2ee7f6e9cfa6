// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
)

// What the README tells to do on Kubernetes is done here, line by line, with nothing
// of podmeter in the cluster before.
func TestQuickStart(t *testing.T) {
	lines := commands(t, readme, "### On Kubernetes")
	if len(lines) < 4 {
		t.Fatalf("got %q, want 4 lines at least", lines)
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "make ") {
			checkBuilt(t, line)
		}
	}
	c := inCluster(t)
	c.kubectl(t, "", "delete", "--kustomize", manifests+"overlays/prometheus", "--ignore-not-found")
	t.Cleanup(func() { c.asShipped(t) })
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, "make "): // done
		case line == lines[len(lines)-1]:
			// What pods say is drained twice before it is shown.
			var out string
			ktest.AwaitWithin(t, patience, "an answer for people", func() string {
				out = shell(t, line)
				return unreadable(out)
			})
			t.Logf("%s\n%s", line, out)
		default:
			t.Logf("%s\n%s", line, shell(t, line))
		}
	}
	c.prometheus(t).await(t, "an answer", `topk(3, podmeter_pod_transmit_bytes_total)`, present)
	c.noFailedProbes(t, agentNamespace)
}

// unreadable says what keeps an answer from being a table of who talks to whom.
func unreadable(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	switch {
	case strings.Contains(out, "{"):
		return "got data for programs: " + out
	case !strings.HasPrefix(out, "WORKLOAD "), len(lines) < 4:
		return "got no table: " + out
	case !strings.Contains(lines[len(lines)-1], "every byte is on the row of a flow"):
		return "got no reconciliation: " + out
	}
	return ""
}

// noFailedProbes expects that what was installed got ready without a probe that failed
// before.
func (c *cluster) noFailedProbes(t *testing.T, namespace string) {
	t.Helper()
	found := c.kubectl(t, "", "get", "events", "--namespace", namespace, "--field-selector", "reason=Unhealthy",
		"--output", `jsonpath={range .items[*]}{.involvedObject.name}: {.message}{"\n"}{end}`)
	if len(found) > 0 {
		t.Errorf("%s: got failed probes, want none:\n%s", namespace, found)
	}
}

// commands returns the lines of the first indented block behind a heading, without
// their comments.
func commands(t *testing.T, document, heading string) (lines []string) {
	t.Helper()
	content, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(content), "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s: there is no %q", document, heading)
	}
	for line := range strings.Lines(section) {
		command, indented := strings.CutPrefix(line, "    ")
		if !indented && len(lines) > 0 || strings.HasPrefix(line, "#") {
			break
		}
		if indented {
			command, _, _ = strings.Cut(command, "  #")
			lines = append(lines, strings.TrimSpace(command))
		}
	}
	return lines
}

// checkBuilt wants run.sh to have done it: the node is no place to build in.
func checkBuilt(t *testing.T, line string) {
	t.Helper()
	content, err := os.ReadFile("run.sh")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(strings.Split(string(content), "\n"), func(done string) bool {
		return done == line || strings.HasPrefix(done, line+" ")
	}) {
		t.Errorf("run.sh: got no %q, want what the README says", line)
	}
}

// shell runs a line in the top folder and returns what it printed.
func shell(t *testing.T, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, "sh", "-c", line)
	command.Dir = "../.."
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}
