// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/flows/geo/demodb"
	"github.com/podmeter/podmeter/internal/ktest"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// What stands for Grafana's variables. The window is short, as destinations are to be new
// within it, and Prometheus to have been there before.
const (
	dashboardWindow = "15s"
	dashboardWithin = 90 * time.Second
)

var grafanaVariables = strings.NewReplacer(
	"$__rate_interval", "4s", "$__range", "30s", "$window", dashboardWindow, "$price", "0.02",
	"$cluster", ".*", "$namespace", ".*", "$workload", ".*", "$pod", ".*", "$container", ".*", "$job", "podmeter", "$instance", ".*",
)

// question is a query of a panel, or what a variable takes its values from.
type question struct {
	where, expr string
	instant     bool
	label       string // of a variable
}

// questions are all that the shipped dashboards ask.
func questions(t *testing.T) (all []question) {
	t.Helper()
	files, err := filepath.Glob("../../deploy/grafana/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v, %v, want dashboards", files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var dashboard struct {
			UID    string
			Panels []struct {
				Title   string
				Targets []struct {
					RefID, Expr string
					Instant     bool
				}
			}
			Templating struct {
				List []struct{ Name, Type, Definition string }
			}
		}
		if err := json.Unmarshal(content, &dashboard); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				all = append(all, question{dashboard.UID + ", " + panel.Title + ", " + target.RefID, grafanaVariables.Replace(target.Expr), target.Instant, ""})
			}
		}
		for _, v := range dashboard.Templating.List {
			if v.Type == "query" {
				expr, _ := strings.CutPrefix(v.Definition, "label_values(")
				expr, _ = strings.CutSuffix(expr, ", "+v.Name+")")
				all = append(all, question{dashboard.UID + ", variable " + v.Name, grafanaVariables.Replace(expr), true, v.Name})
			}
		}
	}
	return all
}

// answers is how many series or values a question has for an answer now.
func (q question) answers(t *testing.T, prometheus promv1.API) (int, error) {
	now := time.Now()
	if q.label != "" {
		values, _, _, err := prometheus.LabelValues(t.Context(), q.label, []string{q.expr}, now.Add(-30*time.Second), now)
		return len(values), err
	}
	var value model.Value
	var err error
	if q.instant {
		value, _, _, err = prometheus.Query(t.Context(), q.expr, now)
	} else {
		value, _, _, err = prometheus.QueryRange(t.Context(), q.expr, promv1.Range{Start: now.Add(-30 * time.Second), End: now, Step: time.Second})
	}
	switch v := value.(type) {
	case model.Vector:
		return len(v), err
	case model.Matrix:
		return len(v), err
	}
	return 0, err
}

// Each query of each panel of the shipped dashboards, and of each variable, has an answer of a
// Prometheus that scraped an agent under traffic, and podmeter geoip.
func TestDashboardsShowData(t *testing.T) {
	ktest.Privileged(t)
	findPrometheus(t)
	w := newDashboardWorld(t)
	w.start(t)
	prometheus := startPrometheus(t, w.node)
	p := w.meter(t)
	w.place(t)
	w.addLate(t)

	pending := questions(t)
	if len(pending) < 100 {
		t.Fatalf("got %d questions, want those of all dashboards", len(pending))
	}
	began, asked := time.Now(), len(pending)
	// Prometheus has been there for longer than destinations are new.
	before := question{expr: "podmeter_build_info offset " + dashboardWindow, instant: true}
	var failed error
	for ; len(pending) > 0 && time.Since(began) < dashboardWithin; time.Sleep(200 * time.Millisecond) {
		if n, _ := before.answers(t, prometheus); n > 0 {
			w.discover()
		}
		var left []question
		for _, q := range pending {
			n, err := q.answers(t, prometheus)
			if err != nil {
				failed = fmt.Errorf("%s: %w: %s", q.where, err, q.expr)
			}
			if n == 0 {
				left = append(left, q)
			}
		}
		pending = left
	}
	for _, q := range pending {
		t.Errorf("%s: got nothing, want data: %s", q.where, q.expr)
	}
	if len(pending) > 0 && failed != nil {
		t.Errorf("the last that failed: %v", failed)
	}
	t.Logf("%d questions had an answer after %v", asked-len(pending), time.Since(began))
	p.terminate(t)
}

// meter runs an agent with all that is opt-in, once both pods' interfaces have counted
// something: what passed before is unattributed.
func (w *dashboardWorld) meter(t *testing.T) *process {
	t.Helper()
	var listener net.Listener
	err := w.node.Do(func() (err error) {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: &receiver{counts: make(map[string]float64)}, ReadHeaderTimeout: 10 * time.Second}
	t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve(listener) }()
	p := start(t, w.node, nil, w.flags(
		"--identity", "kubernetes", "--kubeconfig", w.kubeconfig, "--node-name", "here", "--interfaces", "!up0", "--attach", "netlink", "--sockets", "on", "--host-pods", "off",
		"--geoip", writeDatabase(t, "city.mmdb", demodb.City()), "--geoip", writeDatabase(t, "asn.mmdb", demodb.ASN()),
		"--external-labels", "city,latitude,longitude,ip", "--remote-write-url", "http://"+listener.Addr().String()+"/api/v1/write",
		"--remote-write-interval", "1s", "--remote-write-spool", filepath.Join(w.dir, "spool"))...)
	w.await(t, p, "both pods are metered", func(s *agent.Status) bool {
		bound := 0
		for _, i := range s.Interfaces {
			if i.Pod != "" {
				bound++
			}
		}
		return bound == 2
	})
	return p
}

// place runs podmeter geoip for the addresses that Prometheus has.
func (w *dashboardWorld) place(t *testing.T) {
	t.Helper()
	start(t, w.node, nil, "geoip", "--prometheus-url", "http://"+prometheusAddress, "--interval", "1s", "--listen", "127.0.0.1:8080",
		"--query", "sum by (ip) (rate(podmeter_external_transmit_bytes_total[30s]))", "--geoip", writeDatabase(t, "city.mmdb", demodb.City()))
}

// discover lets the pod talk to a place that it has not talked to. It may be called again.
func (w *dashboardWorld) discover() {
	select {
	case <-w.discovered:
	default:
		close(w.discovered)
	}
}

func writeDatabase(t *testing.T, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
