// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/flows/geo/demodb"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/promtest"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// What stands for Grafana's variables. The window is short, as destinations are to be new
// within it, and Prometheus to have been there before.
const (
	dashboardWindow = "15s"
	dashboardWithin = 90 * time.Second
	// dashboardLate is how long after each other pods come of which something is unattributed.
	dashboardLate = 5 * time.Second
)

var grafanaVariables = strings.NewReplacer(
	" or vector(0)", "", // which has an answer always
	"$__rate_interval", "4s", "$__range", "30s", "$window", dashboardWindow, "$price", "0.02",
	"$cluster", ".*", "$namespace", ".*", "$workload", ".*", "$pod", ".*", "$container", ".*", "$job", "podmeter", "$instance", ".*",
)

// question is a query of a panel, or what a variable takes its values from.
type question struct {
	where, expr string
	instant     bool
	label       string   // of a variable
	shown       []string // labels that a legend or columns show
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
		var d struct {
			UID        string
			Panels     []dashboardPanel
			Templating struct {
				List []struct{ Name, Type, Definition string }
			}
		}
		if err := json.Unmarshal(content, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, p := range d.Panels {
			all = append(all, p.questions(d.UID)...)
		}
		for _, v := range d.Templating.List {
			if v.Type == "query" {
				expr, _ := strings.CutPrefix(v.Definition, "label_values(")
				expr, _ = strings.CutSuffix(expr, ", "+v.Name+")")
				all = append(all, question{d.UID + ", variable " + v.Name, grafanaVariables.Replace(expr), true, v.Name, nil})
			}
		}
	}
	return all
}

type dashboardPanel struct {
	Title   string
	Targets []struct {
		RefID, Expr, LegendFormat string
		Instant                   bool
	}
	Transformations []struct {
		Options struct {
			RowField, ColumnField string
			RenameByName          map[string]string
		}
	}
}

var legendLabel = regexp.MustCompile(`{{([a-z_]+)}}`)

func (p dashboardPanel) questions(uid string) (all []question) {
	for n, target := range p.Targets {
		q := question{uid + ", " + p.Title + ", " + target.RefID, grafanaVariables.Replace(target.Expr), target.Instant, "", nil}
		for _, found := range legendLabel.FindAllStringSubmatch(target.LegendFormat, -1) {
			q.shown = append(q.shown, found[1])
		}
		for _, transformation := range p.Transformations {
			if o := transformation.Options; n == 0 { // later ones are merged with its rows
				q.shown = append(append(q.shown, o.RowField, o.ColumnField), slices.Collect(maps.Keys(o.RenameByName))...)
			}
		}
		q.shown = slices.DeleteFunc(q.shown, func(label string) bool { return label == "" || strings.HasPrefix(label, "Value") })
		all = append(all, q)
	}
	return all
}

// empty are those that have no answer when all is well, and why. They are asked all the same.
var empty = map[string]string{
	"podmeter-agents, Agents down, A":     "the agent is up",
	"podmeter-pods, RTT by peer, 95 %, B": "there are quantiles",
}

// moving are what has to be more than 0 where it is asked for: there was such traffic.
var moving = []string{
	"podmeter_tcp_retransmitted_bytes_total", "podmeter_tcp_connections_failed_total", "podmeter_tcp_connections_opened_total", "podmeter_tcp_rtt_seconds",
	`locality="cross_zone"`, `peer_kind="external"`, "podmeter_external_", `service!=""`, "geo_ip", "podmeter_remote_write_requests_total",
}

func (q question) asksUnattributed() bool { return strings.Contains(q.expr, "unattributed") }

// asksNew reports whether a question is for what was not there before.
func (q question) asksNew() bool { return strings.Contains(q.expr, " offset ") }

// answered reports whether a question has an answer now that shows something.
func (q question) answered(t *testing.T, prometheus promv1.API) (bool, error) {
	t.Helper()
	now := time.Now()
	if q.label != "" {
		values, _, _, err := prometheus.LabelValues(t.Context(), q.label, []string{q.expr}, now.Add(-30*time.Second), now)
		return len(values) > 0, err
	}
	value, err := q.ask(t, prometheus, now)
	moves := slices.ContainsFunc(moving, func(part string) bool { return strings.Contains(q.expr, part) })
	var rows []model.Metric
	switch v := value.(type) {
	case model.Vector:
		for _, s := range v {
			// What is new is that which came last.
			isNew := !q.asksNew() || s.Metric["country"] == "CA"
			if isNew && (!moves || s.Value > 0) {
				rows = append(rows, s.Metric)
			}
		}
	case model.Matrix:
		for _, s := range v {
			if !moves || slices.ContainsFunc(s.Values, func(pair model.SamplePair) bool { return pair.Value > 0 }) {
				rows = append(rows, s.Metric)
			}
		}
	}
	for _, label := range q.shown {
		if !slices.ContainsFunc(rows, func(row model.Metric) bool { return row[model.LabelName(label)] != "" }) {
			return false, err
		}
	}
	return len(rows) > 0, err
}

func (q question) ask(t *testing.T, prometheus promv1.API, now time.Time) (value model.Value, err error) {
	if q.instant {
		value, _, _, err = prometheus.Query(t.Context(), q.expr, now)
	} else {
		value, _, _, err = prometheus.QueryRange(t.Context(), q.expr, promv1.Range{Start: now.Add(-30 * time.Second), End: now, Step: time.Second})
	}
	return value, err
}

// there reports whether Prometheus has been there for longer than destinations are new.
func (w *dashboardWorld) there(t *testing.T, prometheus promv1.API) bool {
	t.Helper()
	q := question{expr: "podmeter_external_transmit_bytes_total offset " + dashboardWindow, instant: true}
	value, err := q.ask(t, prometheus, time.Now())
	vector, _ := value.(model.Vector)
	return err == nil && len(vector) > 0
}

// Each query of each panel of the shipped dashboards, and of each variable, has an answer of a
// Prometheus that scraped an agent under traffic, and podmeter geoip.
func TestDashboardsShowData(t *testing.T) {
	ktest.Privileged(t)
	binary := promtest.Debian(t)
	w := newDashboardWorld(t)
	w.start(t)
	prometheus, url := startPrometheus(t, binary, w.node)
	p := w.meter(t)
	w.place(t, url)

	pending, failed := questions(t), make(map[string]error)
	if len(pending) < 100 {
		t.Fatalf("got %d questions, want those of all dashboards", len(pending))
	}
	began, asked := time.Now(), len(pending)
	var lately time.Time
	for ; len(pending) > 0 && time.Since(began) < dashboardWithin; time.Sleep(200 * time.Millisecond) {
		// Of what is unattributed some has to come within the time that is asked for, however
		// long the other questions take.
		if slices.ContainsFunc(pending, question.asksUnattributed) && time.Since(lately) > dashboardLate {
			w.addLate(t)
			lately = time.Now()
		}
		// What is new is so for a while only, in which nothing else may hold up the question.
		if !slices.ContainsFunc(pending, func(q question) bool { return !q.asksNew() }) && w.there(t, prometheus) {
			w.discover()
		}
		pending = slices.DeleteFunc(pending, func(q question) bool {
			answered, err := q.answered(t, prometheus)
			failed[q.where] = err
			return err == nil && (answered || empty[q.where] != "")
		})
	}
	for _, q := range pending {
		t.Errorf("%s: got nothing (%v), want data: %s", q.where, failed[q.where], q.expr)
	}
	t.Logf("%d questions had an answer after %v", asked-len(pending), time.Since(began))
	p.terminate(t)
}

// meter runs an agent with all that is opt-in, once both pods' interfaces have counted
// something: what passed before is unattributed.
func (w *dashboardWorld) meter(t *testing.T) *process {
	t.Helper()
	_, url := newReceiver(t, w.node)
	p := start(t, w.node, nil, w.flags(
		"--identity", "kubernetes", "--kubeconfig", w.kubeconfig, "--node-name", "here", "--interfaces", "!up0", "--attach", "netlink", "--sockets", "on", "--host-pods", "off",
		"--geoip", writeDatabase(t, "city.mmdb", demodb.City()), "--geoip", writeDatabase(t, "asn.mmdb", demodb.ASN()),
		"--external-labels", "city,latitude,longitude,ip", "--rtt-classic-buckets", "--remote-write-url", url,
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
func (w *dashboardWorld) place(t *testing.T, url string) {
	t.Helper()
	start(t, w.node, nil, "geoip", "--prometheus-url", url, "--interval", "1s", "--listen", "127.0.0.1:8080",
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
