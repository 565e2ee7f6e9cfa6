// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	engine "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
)

// answered is what is asked for over ten minutes of all that there is.
var answered = strings.NewReplacer("$__range", "10m", "$__rate_interval", "10m", "$window", "10m",
	"$cluster", ".*", "$namespace", ".*", "$workload", ".*", "$pod", ".*", "$container", ".*", "$job", "podmeter", "$instance", ".*")

// answers are those to each query of a table after twenty minutes: label sets and values.
func answers(t *testing.T, data storage.Queryable, file, title string, topk int) (all [][]string) {
	t.Helper()
	d := dashboards(t)[file]
	n := slices.IndexFunc(d.Panels, func(p *panel) bool { return p.Type == "table" && p.Title == title })
	if n < 0 {
		t.Fatalf("%s has no table %q", file, title)
	}
	for _, target := range d.Panels[n].Targets {
		expr := target.Expr
		for _, count := range []string{"200", "100"} {
			expr = strings.ReplaceAll(expr, "topk("+count+",", fmt.Sprintf("topk(%d,", topk))
		}
		all = append(all, answer(t, data, expr))
	}
	return all
}

// answer is that to a query after twenty minutes.
func answer(t *testing.T, data storage.Queryable, expr string) []string {
	t.Helper()
	query, err := promqltest.NewTestEngine(t, false, 5*time.Minute, 1e6).NewInstantQuery(t.Context(), data, nil, answered.Replace(expr), time.Unix(20*60, 0))
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer query.Close()
	vector, err := query.Exec(t.Context()).Vector()
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	rows := []string{}
	for _, s := range vector {
		rows = append(rows, row(s))
	}
	slices.Sort(rows)
	return rows
}

// row is a label set's values and its value.
func row(s engine.Sample) string {
	var values []string
	s.Metric.Range(func(l labels.Label) { values = append(values, l.Value) })
	return strings.Join(append(values, fmt.Sprintf("%.4g", s.F)), " ")
}

// Agents of the same name in two clusters are two rows, and edges of the same name as well.
func TestDashboardsTellClustersApart(t *testing.T) {
	data := promqltest.LoadedStorage(t, `load 1m
podmeter_build_info{job="podmeter", instance="a", cluster="east", version="1"} 1x30
podmeter_build_info{job="podmeter", instance="a", cluster="west", version="2"} 1x30
process_resident_memory_bytes{job="podmeter", instance="a", cluster="east"} 10x30
process_resident_memory_bytes{job="podmeter", instance="a", cluster="west"} 20x30
process_cpu_seconds_total{job="podmeter", instance="a", cluster="east"} 0+60x30
process_cpu_seconds_total{job="podmeter", instance="a", cluster="west"} 0+120x30
podmeter_series{job="podmeter", instance="a", cluster="east", family="flow"} 10x30
podmeter_series{job="podmeter", instance="a", cluster="west", family="flow"} 30x30
podmeter_series_limit{job="podmeter", instance="a", cluster="east", family="flow"} 100x30
podmeter_series_limit{job="podmeter", instance="a", cluster="west", family="flow"} 100x30
edge:podmeter_lost_packets:ratio15m{cluster="east", namespace="shop", workload="web", peer_namespace="data", peer="db"} 0.75x30
edge:podmeter_lost_packets:ratio15m{cluster="west", namespace="shop", workload="web", peer_namespace="data", peer="db"} 0.5x30
edge:podmeter_sent_packets:increase15m{cluster="east", namespace="shop", workload="web", peer_namespace="data", peer="db"} 4x30
edge:podmeter_sent_packets:increase15m{cluster="west", namespace="shop", workload="web", peer_namespace="data", peer="db"} 8x30
`)
	agents := answers(t, data, "podmeter-agents.json", "Agents", 100)
	if diff := cmp.Diff([][]string{{"east a 1 10", "west a 2 20"}, {"east a 1 1", "west a 2 2"}, {"east a 1 0.1", "west a 2 0.3"}}, agents[:3]); diff != "" {
		t.Error("agents: -want +got\n" + diff)
	}
	lost := answers(t, data, "podmeter-overview.json", "Packets lost on an edge", 100)
	if diff := cmp.Diff([][]string{{"east shop db data web 0.75", "west shop db data web 0.5"}, {"east shop db data web 4", "west shop db data web 8"}}, lost); diff != "" {
		t.Error("edges: -want +got\n" + diff)
	}
}

// Where it is chosen what a table shows, each column shows the same.
func TestDashboardsChooseRowsOnce(t *testing.T) {
	// The first of each direction are others, and both is neither. A series has its own bytes a second.
	const receives, sends, both, quiet = 50, 40, 30, 1
	var load strings.Builder
	load.WriteString("load 1m\n")
	series := func(name, of string, perSecond int) {
		fmt.Fprintf(&load, "%s{%s} 0+%dx30\n", name, of, perSecond*60)
	}
	for _, family := range []string{"flow", "pod", "external"} {
		for name, rates := range map[string][2]int{"receives": {0, receives}, "sends": {sends, 0}, "both": {both, both}, "quiet": {quiet, quiet}} {
			for n, direction := range []string{"transmit", "receive"} {
				if rates[n] > 0 || name == "sends" { // of one there is no series at all
					series("podmeter_"+family+"_"+direction+"_bytes_total", fmt.Sprintf(
						`namespace="shop", pod=%q, peer_kind="external", protocol="tcp", peer=%q, asn=%q`, name, name, name), rates[n])
				}
			}
		}
	}
	for _, name := range []string{"both", "quiet"} {
		series("podmeter_tcp_retransmitted_bytes_total", fmt.Sprintf(`pod=%q, peer_kind="external", peer=%q`, name, name), 1)
		series("podmeter_tcp_connections_failed_total", fmt.Sprintf(`pod=%q, peer_kind="external", peer=%q`, name, name), 1)
		series("podmeter_tcp_rtt_seconds_bucket", fmt.Sprintf(`pod=%q, peer_kind="external", peer=%q, le="1"`, name, name), 1)
		series("podmeter_tcp_rtt_seconds_bucket", fmt.Sprintf(`pod=%q, peer_kind="external", peer=%q, le="+Inf"`, name, name), 1)
		series("podmeter_tcp_rtt_seconds_sum", fmt.Sprintf(`pod=%q, peer_kind="external", peer=%q`, name, name), 1)
		series("podmeter_tcp_rtt_seconds_count", fmt.Sprintf(`pod=%q, peer_kind="external", peer=%q`, name, name), 2)
	}
	data := promqltest.LoadedStorage(t, load.String())
	for _, test := range []struct {
		file, title string
		want        [][]string
	}{
		{"podmeter-overview.json", "Pods", [][]string{{"shop both 30"}, {"shop both 30", "shop receives 50"}}},
		{"podmeter-external.json", "Who talks to the internet", [][]string{{"shop both 30"}, {"shop both 30", "shop receives 50"}}},
		{"podmeter-external.json", "Autonomous systems", [][]string{{"both 30"}, {"both 30", "receives 50"}, {"both 1.8e+04"}}},
		{"podmeter-pods.json", "Peers", [][]string{{"both external 30"}, {"both external 30", "receives external 50"}, {"both external 0.95"}, {"both external 0.5"}, {"both external 0.03333"}, {"both external 600"}}},
	} {
		t.Run(test.title, func(t *testing.T) {
			if diff := cmp.Diff(test.want, answers(t, data, test.file, test.title, 2)); diff != "" {
				t.Error("-want +got\n" + diff)
			}
		})
	}
}

// A destination is what is sent to, and new if it was not one of its cluster in the window before.
func TestDashboardsNewDestinations(t *testing.T) {
	data := promqltest.LoadedStorage(t, `load 1m
podmeter_build_info{job="podmeter"} 1x30
podmeter_build_info{job="podmeter", cluster="west"} 1x30
podmeter_build_info{job="podmeter", cluster="north"} _x15 1x15
podmeter_external_transmit_bytes_total{cluster="west", namespace="shop", country="CH", asn="3"} _x15 66x15
podmeter_external_transmit_bytes_total{cluster="north", namespace="shop", country="CH", asn="3"} _x15 66x15
podmeter_external_transmit_bytes_total{namespace="shop", country="CA", asn="1"} _x15 66x15
podmeter_external_receive_bytes_total{namespace="shop", country="CA", asn="1"} _x15 66x15
podmeter_external_transmit_bytes_total{namespace="shop", country="KP", asn="2"} _x15 0x15
podmeter_external_receive_bytes_total{namespace="shop", country="KP", asn="2"} _x15 66x15
podmeter_external_transmit_bytes_total{namespace="shop", country="CH", asn="3"} 0+60x30
`)
	got := answers(t, data, "podmeter-external.json", "New destinations in the last $window", 200)
	if diff := cmp.Diff([][]string{{"1 CA shop 66", "3 west CH shop 66"}}, got); diff != "" {
		t.Error("-want +got\n" + diff)
	}
}

// Whatever there is of RTTs, a panel shows it: quantiles of either kind of buckets, or else the
// mean, which says so, as a histogram that has but one bucket of all does too.
func TestDashboardsShowRTTs(t *testing.T) {
	const (
		traffic = "\npodmeter_flow_transmit_bytes_total{namespace=\"shop\", pod=\"web\", peer_kind=\"pod\", peer=\"db\"} 0+60x30\n"
		of      = `{namespace="shop", pod="web", peer_kind="pod", peer="db"`
		sums    = "podmeter_tcp_rtt_seconds_sum" + of + "} 0+3x30\npodmeter_tcp_rtt_seconds_count" + of + "} 0+4x30\n"
		all     = "podmeter_tcp_rtt_seconds_bucket" + of + ", le=\"+Inf\"} 0+4x30\n"
		bucket  = "podmeter_tcp_rtt_seconds_bucket" + of + ", le=\"1\"} 0+4x30\n"
		native  = "podmeter_tcp_rtt_seconds" + of + "} {{schema:1 sum:0 count:0 buckets:[0]}}+{{schema:1 sum:3 count:4 buckets:[4]}}x30\n"
	)
	for name, test := range map[string]struct {
		load      string
		quantiles bool
		buckets   int // of the heatmap
	}{
		"native": {native, true, 1}, "classic": {sums + bucket + all, true, 2}, "both": {native + sums + bucket + all, true, 1},
		"text": {sums, false, 0}, "protobuf without native": {sums + all, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			data, panels := promqltest.LoadedStorage(t, "load 1m"+traffic+test.load), 0
			for file, d := range dashboards(t) {
				for _, p := range d.Panels {
					quantiles, others, asked := rttAnswers(t, data, p)
					switch {
					case !asked:
						continue
					case p.Type == "heatmap" && len(others) != test.buckets:
						t.Errorf("%s, %s: got %q, want %d buckets", file, p.Title, others, test.buckets)
					case p.Type != "heatmap" && (len(quantiles) > 0) != test.quantiles:
						t.Errorf("%s, %s: got the quantiles %q, want some: %v", file, p.Title, quantiles, test.quantiles)
					case p.Type != "heatmap" && !test.quantiles && (len(others) != 1 || !strings.HasSuffix(others[0], "0.75")):
						t.Errorf("%s, %s: got the means %q, want 0.75", file, p.Title, others)
					}
					panels++
				}
			}
			if panels < 7 {
				t.Errorf("got %d panels of RTTs, want all", panels)
			}
		})
	}
}

// rttAnswers are those to the queries of a panel that ask for RTTs, of quantiles and others.
func rttAnswers(t *testing.T, data storage.Queryable, p *panel) (quantiles, others []string, asked bool) {
	t.Helper()
	for _, target := range p.Targets {
		if !strings.Contains(target.Expr, "podmeter_tcp_rtt_seconds") {
			continue
		}
		asked = true
		if got := answer(t, data, target.Expr); strings.HasPrefix(strings.TrimPrefix(target.Expr, "("), "histogram_quantile") {
			quantiles = append(quantiles, got...)
		} else {
			others = append(others, got...)
		}
	}
	return quantiles, others, asked
}
