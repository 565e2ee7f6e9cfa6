// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/prometheus/common/model"
)

// The Prometheus of the manifests gives series no label but those of their node and
// job, sees a roll-out of the agents as nothing new, and answers the README.
func TestPrometheus(t *testing.T) {
	c := inCluster(t)
	p := c.monitoring(t, "testdata/places")
	c.talk(t, talkers)
	t.Run("labels", func(t *testing.T) { p.checkLabels(t, c) })
	t.Run("queries of the README", p.checkReadme)
	t.Run("roll-out", func(t *testing.T) { p.checkRollout(t, c) })
	t.Run("alerts", p.checkQuiet)
}

// The alert on exported_pod fires where a job does not honor the labels.
func TestPrometheusAlert(t *testing.T) {
	c := inCluster(t)
	p := c.monitoring(t, "testdata/unhonored")
	p.await(t, "the alert", `ALERTS{alertstate="firing", alertname="PodmeterExportedLabels", job="kubernetes-pods"}`, present)
}

// talkers is the namespace of the pods that talk meanwhile.
const talkers = "e2e-prometheus"

// present wants a query to have an answer.
func present(found model.Vector) string {
	if len(found) == 0 {
		return "got nothing"
	}
	return ""
}

// talk lets pods of a new namespace talk: to each other, to one in another zone and
// to the internet, for as long as the test.
func (c *cluster) talk(t *testing.T, namespace string) {
	t.Helper()
	c.namespace(t, namespace)
	c.apply(t, namespace, "servers.yaml")
	c.farPod(t, namespace)
	c.rolledOut(t, namespace, "deployment/web")
	c.apply(t, namespace, "talkers.yaml")
	c.rolledOut(t, namespace, "deployment/talker")
}

// farPod makes a node in another zone and a pod on it. Nothing runs there, as there
// is no such machine: the address is one of the internet's, which answers.
func (c *cluster) farPod(t *testing.T, namespace string) {
	t.Helper()
	ktest.AwaitWithin(t, patience, "the namespace's account", func() string {
		if _, err := run(t.Context(), "", "get", "serviceaccount", "default", "--namespace", namespace); err != nil {
			return err.Error()
		}
		return ""
	})
	t.Cleanup(func() { c.cleanUp(t, "delete", "node", "e2e-far", "--ignore-not-found") })
	c.apply(t, namespace, "far.yaml")
	c.kubectl(t, "", "patch", "pod", "far", "--namespace", namespace, "--subresource", "status", "--patch",
		`{"status": {"phase": "Running", "podIP": "203.0.113.50", "podIPs": [{"ip": "203.0.113.50"}]}}`)
}

// checkLabels compares the series with the agent's exposition: beyond that they have
// the job, and the node's name twice.
func (p *prometheus) checkLabels(t *testing.T, c *cluster) {
	ktest.AwaitWithin(t, patience, "no series but the agent's", func() string {
		found, err := p.query(`{job="podmeter", __name__!~"up|scrape_.+"}`)
		if err != nil {
			return err.Error()
		}
		exposed := c.podmeter(t).identities()
		for _, s := range found {
			if s.Metric["job"] != "podmeter" || s.Metric["instance"] != model.LabelValue(c.node) || s.Metric["node"] != model.LabelValue(c.node) {
				return fmt.Sprintf("got %v, want instance and node to be %s", s.Metric, c.node)
			}
			for _, given := range []model.LabelName{"job", "instance", "node"} {
				delete(s.Metric, given)
			}
			if id := identity(s.Metric); !exposed[id] {
				return "the agent has no series " + id
			}
		}
		if len(found) < 100 {
			return fmt.Sprintf("got %d series, want 100 at least", len(found))
		}
		return ""
	})
}

// checkReadme runs each query that stands in the README.
func (p *prometheus) checkReadme(t *testing.T) {
	queries := promql(t, readme)
	if len(queries) < 3 {
		t.Fatalf("got queries %q, want 3 at least", queries)
	}
	for _, query := range queries {
		p.await(t, "an answer", query, func(found model.Vector) string {
			for _, s := range found {
				if s.Value > 0 {
					t.Logf("%s: %d series, such as %v", query, len(found), s)
					return ""
				}
			}
			return fmt.Sprintf("got %v, want a value above 0", found)
		})
	}
}

// promql returns the queries of a document: the lines of its blocks that are no
// comments.
func promql(t *testing.T, document string) (queries []string) {
	t.Helper()
	content, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```promql"
		case inside && line != "" && !strings.HasPrefix(line, "#"):
			queries = append(queries, line)
		}
	}
	return queries
}

// checkRollout rolls the agents out under traffic: the series after it are those
// before it, and go on.
func (p *prometheus) checkRollout(t *testing.T, c *cluster) {
	p.settled(t)
	before, began := p.seriesOf(t), p.started(t)
	c.kubectl(t, "", "rollout", "restart", "--namespace", agentNamespace, "daemonset/podmeter")
	c.rolledOut(t, agentNamespace, "daemonset/podmeter")
	// For two scrapes, so that there is something to compare.
	const start = `process_start_time_seconds{job="podmeter"}`
	p.await(t, "scrapes of another agent", start+" > "+began+" and timestamp("+start+") - "+start+" > 12", present)
	after := p.seriesOf(t)
	for id := range after {
		if !before[id] {
			t.Errorf("new after the roll-out: %s", id)
		}
	}
	for id := range before {
		if !after[id] {
			t.Errorf("gone after the roll-out: %s", id)
		}
	}
	t.Logf("%d series before and after", len(after))
	p.checkResets(t)
}

// checkResets wants no counter of podmeter to have gone down, but for what an agent
// counts of its own work.
func (p *prometheus) checkResets(t *testing.T) {
	ofProcess := []string{"podmeter_service_lookups_total", "podmeter_checkpoint_errors_total", "podmeter_snapshot_errors_total"}
	for _, name := range p.names(t) {
		if !strings.HasPrefix(name, "podmeter_") || !strings.HasSuffix(name, "_total") || slices.Contains(ofProcess, name) {
			continue
		}
		found, err := p.query(`resets(` + name + `{job="podmeter"}[10m])`)
		if err != nil || len(found) == 0 {
			t.Errorf("resets of %s: got %v, %v, want an answer", name, found, err)
		}
		for _, s := range found {
			if s.Value != 0 {
				t.Errorf("%s%v: got %v resets, want 0", name, s.Metric, s.Value)
			}
		}
	}
}

// checkQuiet wants no alert to fire when all is well.
func (p *prometheus) checkQuiet(t *testing.T) {
	p.await(t, "an evaluation of the rules", `prometheus_rule_group_iterations_total{rule_group=~".*;podmeter"} > 2`, present)
	if found, err := p.query(`ALERTS{alertstate="firing"}`); err != nil || len(found) != 0 {
		t.Errorf("alerts: got %v, %v, want none", found, err)
	}
}
