// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/promtest"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// What the operator makes of enforcedNamespaceLabel: the label of the target, and of every
// sample.
const (
	enforcedTarget = `relabel_configs: [{target_label: namespace, replacement: podmeter}]`
	enforcedSample = `metric_relabel_configs: [{target_label: namespace, replacement: podmeter}]`
)

// Where a platform takes the metered pods' namespace away, an alert says so, and where it
// does not there is none.
func TestAlertsOfEnforcedNamespaces(t *testing.T) {
	e := newExporter(t, options(&source{snapshot: handMade(), agent: handMadeAgent()}, flows.Optional{}))
	agent := httptest.NewServer(promhttp.HandlerFor(e.Registry(), promhttp.HandlerOpts{}))
	t.Cleanup(agent.Close)
	rules, err := filepath.Abs(deployFolder + "/kubernetes/overlays/prometheus/podmeter.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	job := func(name, settings string) string {
		return fmt.Sprintf("{job_name: %s, %s, static_configs: [{targets: [%q]}]}", name, settings, strings.TrimPrefix(agent.URL, "http://"))
	}
	config := fmt.Sprintf("{global: {scrape_interval: 1s, evaluation_interval: 1s}, rule_files: [%q], scrape_configs: [%s]}", rules, strings.Join([]string{
		job("honored", "honor_labels: true"),
		job("renamed", enforcedTarget+", "+enforcedSample), // overrideHonorLabels as well
		job("overwritten", "honor_labels: true, "+enforcedTarget+", "+enforcedSample),
	}, ", "))
	s := promtest.New(t, promtest.Debian(t), config)
	s.Await(`count(ALERTS{alertname="PodmeterNamespaceOverwritten", job="overwritten", namespace="podmeter"})`, "1") // pending
	s.Await(`count(ALERTS{alertname="PodmeterExportedLabels", job="renamed"})`, "1")
	s.Await(`count(podmeter_pod_transmit_bytes_total{job="honored", namespace="web"}) > 0`, "2")
	s.Await(`count(ALERTS{alertname=~"PodmeterExportedLabels|PodmeterNamespaceOverwritten"})`, "2")
}
