// SPDX-License-Identifier: Apache-2.0

package geoip

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/promtest"
)

// agentFake exposes what an agent with the opt-in labels of addresses does, with
// counters that grow by each scrape.
func agentFake(t *testing.T) *httptest.Server {
	t.Helper()
	var scrapes atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := 100 * scrapes.Add(1)
		const pod = `namespace="shop",pod="web-0",container="nginx"`
		fmt.Fprintf(w, "# TYPE podmeter_external_transmit_bytes_total counter\n")
		fmt.Fprintf(w, "podmeter_external_transmit_bytes_total{%s,country=\"CH\",ip=\"198.51.100.7\"} %d\n", pod, n)
		fmt.Fprintf(w, "podmeter_external_transmit_bytes_total{%s,country=\"IS\",ip=\"2001:db8:1::1\"} %d\n", pod, 2*n)
		fmt.Fprintf(w, "# TYPE podmeter_flow_transmit_bytes_total counter\n")
		fmt.Fprintf(w, "podmeter_flow_transmit_bytes_total{%s,peer_kind=\"external\",peer_ip=\"198.51.100.7\"} %d\n", pod, n)
		fmt.Fprintf(w, "podmeter_flow_transmit_bytes_total{%s,peer_kind=\"pod\",peer_ip=\"10.1.0.5\"} %d\n", pod, n)
	}))
	t.Cleanup(server.Close)
	return server
}

// startPrometheus runs one that scrapes a target every second and evaluates the shipped
// rules of compatibility, and returns its URL.
func startPrometheus(t *testing.T, binary, target string) string {
	t.Helper()
	rules, err := filepath.Abs("../../../deploy/prometheus/compatibility/compatibility.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	return promtest.New(t, binary, fmt.Sprintf(`{global: {scrape_interval: 1s, evaluation_interval: 1s}, rule_files: [%q],
scrape_configs: [{job_name: podmeter, honor_labels: true, static_configs: [{targets: [%q], labels: {node: node-a}}]}]}`, rules, target)).URL
}

// TestWithPrometheus asks the query of older dashboards of a real one, with the rules
// that give it an answer from podmeter's own series.
func TestWithPrometheus(t *testing.T) {
	t.Parallel()
	url := startPrometheus(t, promtest.Debian(t), strings.TrimPrefix(agentFake(t).URL, "http://"))
	config := configOf(t, url)
	config.Query, config.IPLabel = "sum by (k8s_namespace, k8s_pod, destination_ip) (bytes_tx{})", "destination_ip"
	config.Labels, config.Interval = []string{"k8s_namespace", "k8s_pod"}, time.Second
	s, log := newService(t, config)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var lines []string
	for len(lines) < 2 && ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond) // between two looks, not for anything to happen
		lines = exposed(t, s, "geo_ip")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v, want nil", err)
	}
	const pod = `k8s_namespace="shop",k8s_pod="web-0"`
	for i, want := range []string{
		`geo_ip{city="Reykjavík",country="IS",ip="2001:db8:1::1",` + pod + `,latitude="64.1355",longitude="-21.8954",zip="101"} `,
		`geo_ip{city="Zürich",country="CH",ip="198.51.100.7",` + pod + `,latitude="47.3769",longitude="8.5417",zip="8001"} `,
	} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Errorf("got %q, want %q", lines, want)
		}
	}
	if log.count("not public are left out") != 1 || log.count("gives no answer") != 0 {
		t.Errorf("got another log than one of the peer in the cluster:\n%s", &log.b)
	}
}

// What a real one refuses, and what it takes and gives no vector for.
func TestPrometheusRefuses(t *testing.T) {
	t.Parallel()
	url := startPrometheus(t, promtest.Debian(t), "127.0.0.1:9")
	for query, want := range map[string]string{
		"sum(": queryRefused, `up * on (a) group_left () up`: queryAnswered, "up[5m]": queryNoVector, "1": queryNoVector, `label_replace(up, "a", "b", "c", "(")`: queryRefused,
	} {
		config := configOf(t, url)
		config.Query = query
		a, err := newAsker(config)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = a.ask(t.Context())
		if got := resultOf(err); got != want {
			t.Errorf("%s: got %s (%v), want %s", query, got, err, want)
		}
		a.close()
	}
}
