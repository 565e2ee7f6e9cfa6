// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	remote "github.com/prometheus/client_golang/exp/api/remote/genproto/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
)

// texts are the series of requests as lines, the ended ones with "ends".
func texts(requests []*remote.Request) (lines []string) {
	for _, r := range requests {
		for _, s := range r.Timeseries {
			var labels []string
			for n := 0; n+1 < len(s.LabelsRefs); n += 2 {
				labels = append(labels, fmt.Sprintf("%s=%q", r.Symbols[s.LabelsRefs[n]], r.Symbols[s.LabelsRefs[n+1]]))
			}
			line := strings.Join(labels, ",")
			for _, sample := range s.Samples {
				if math.Float64bits(sample.Value) == math.Float64bits(staleNaN) {
					line += " ends"
				} else {
					line += fmt.Sprintf(" %v", sample.Value)
				}
				line += fmt.Sprintf(" @%d", sample.Timestamp)
			}
			for _, h := range s.Histograms {
				line += fmt.Sprintf(" histogram of %d @%d", h.GetCountInt(), h.Timestamp)
			}
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

func TestEncode(t *testing.T) {
	registry := prometheus.NewRegistry()
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bytes_total", Help: "Bytes."}, []string{"pod", "container", "node"})
	bytes.WithLabelValues("web", "", "").Add(7)
	bytes.WithLabelValues("db", "main", "its-own").Add(8)
	took := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "took", Buckets: []float64{.5, 1}, NativeHistogramBucketFactor: 2})
	took.Observe(.75)
	quantiles := prometheus.NewSummary(prometheus.SummaryOpts{Name: "lasted", Objectives: map[float64]float64{.5: .1}})
	quantiles.Observe(3)
	age := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "age"}, func() float64 { return math.Inf(1) })
	natives := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "natives", NativeHistogramBucketFactor: 2})
	natives.Observe(.75)
	registry.MustRegister(bytes, took, quantiles, age, natives)

	var requests []*remote.Request
	e := newEncoder(map[string]string{"job": "podmeter", "node": "node-a"}, true, func(r *remote.Request) {
		requests = append(requests, proto.CloneOf(r))
	})
	encode := func(at int64) []string {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		requests = nil
		e.encode(families, time.UnixMilli(at))
		return texts(requests)
	}
	want := []string{
		`__name__="age",job="podmeter",node="node-a" +Inf @1000`,
		`__name__="bytes_total",container="main",job="podmeter",node="its-own",pod="db" 8 @1000`,
		`__name__="bytes_total",job="podmeter",node="node-a",pod="web" 7 @1000`,
		`__name__="lasted",job="podmeter",node="node-a",quantile="0.5" 3 @1000`,
		`__name__="lasted_count",job="podmeter",node="node-a" 1 @1000`,
		`__name__="lasted_sum",job="podmeter",node="node-a" 3 @1000`,
		`__name__="natives",job="podmeter",node="node-a" histogram of 1 @1000`,
		`__name__="natives_count",job="podmeter",node="node-a" 1 @1000`,
		`__name__="natives_sum",job="podmeter",node="node-a" 0.75 @1000`,
		`__name__="took",job="podmeter",node="node-a" histogram of 1 @1000`,
		`__name__="took_bucket",job="podmeter",le="+Inf",node="node-a" 1 @1000`,
		`__name__="took_bucket",job="podmeter",le="0.5",node="node-a" 0 @1000`,
		`__name__="took_bucket",job="podmeter",le="1.0",node="node-a" 1 @1000`,
		`__name__="took_count",job="podmeter",node="node-a" 1 @1000`,
		`__name__="took_sum",job="podmeter",node="node-a" 0.75 @1000`,
	}
	if diff := cmp.Diff(want, encode(1000)); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	bytes.DeleteLabelValues("web", "", "")
	registry.Unregister(took)
	registry.Unregister(quantiles)
	registry.Unregister(natives)
	got := encode(2000)
	for _, line := range []string{
		`__name__="age",job="podmeter",node="node-a" +Inf @2000`,
		`__name__="bytes_total",job="podmeter",node="node-a",pod="web" ends @2000`,
		`__name__="took",job="podmeter",node="node-a" ends @2000`,
		`__name__="took_bucket",job="podmeter",le="0.5",node="node-a" ends @2000`,
	} {
		if !slices.Contains(got, line) {
			t.Errorf("second: got no %s in\n%s", line, strings.Join(got, "\n"))
		}
	}
	want = []string{
		`__name__="age",job="podmeter",node="node-a" ends @3000`,
		`__name__="bytes_total",container="main",job="podmeter",node="its-own",pod="db" ends @3000`,
	}
	requests = nil
	e.finish(time.UnixMilli(3000))
	if diff := cmp.Diff(want, texts(requests)); diff != "" {
		t.Errorf("end (-want +got):\n%s", diff)
	}
}

// Many series are several requests, each with its own strings.
func TestEncodeInParts(t *testing.T) {
	registry := prometheus.NewRegistry()
	many := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "many"}, []string{"n"})
	for n := range 2*requestSeries + 1 {
		many.WithLabelValues(fmt.Sprint(n)).Set(float64(n))
	}
	registry.MustRegister(many)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var requests []*remote.Request
	newEncoder(nil, false, func(r *remote.Request) { requests = append(requests, proto.CloneOf(r)) }).encode(families, time.UnixMilli(1))
	if len(requests) != 3 {
		t.Fatalf("got %d requests, want 3", len(requests))
	}
	seen := make(map[string]bool)
	for _, line := range texts(requests) {
		seen[line] = true
	}
	if len(seen) != 2*requestSeries+1 {
		t.Errorf("got %d series, want %d", len(seen), 2*requestSeries+1)
	}
}
