// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/testing/protocmp"
)

// bucketOf is the bucket of an RTT by its bounds.
func bucketOf(seconds float64) int {
	for n := range flows.RTTBuckets - 1 {
		if seconds <= rttBound(n) {
			return n
		}
	}
	return flows.RTTBuckets - 1
}

// The histogram is the library's own of the same values, classic and native.
func TestRTTIsTheLibrarysHistogram(t *testing.T) {
	for _, buckets := range []RTTBuckets{RTTFine, RTTCoarse, RTTOff} {
		t.Run(string(buckets), func(t *testing.T) { checkRTT(t, RTTBounds(buckets)) })
	}
}

func checkRTT(t *testing.T, bounds []float64) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, samples := range []int{0, 1, 2, 5, 100, 10000} {
		theirs := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rtt", Buckets: bounds, NativeHistogramBucketFactor: 1.42, NativeHistogramZeroThreshold: flows.RTTZero,
		})
		var ours flows.Health
		for range samples {
			us := 1 + random.Uint64N(1<<random.IntN(26))
			ours.RTTSum += us
			seconds := float64(us) / 1e6
			ours.RTT[bucketOf(seconds)]++
			theirs.Observe(seconds)
		}
		var want, got dto.Metric
		if err := theirs.Write(&want); err != nil {
			t.Fatal(err)
		}
		if err := newRTT(theirs.Desc(), nil, bounds, &ours, want.Histogram.CreatedTimestamp).Write(&got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fewSpans(want.Histogram), fewSpans(got.Histogram), protocmp.Transform(), protocmp.IgnoreFields(&dto.Histogram{}, "sample_sum")); diff != "" {
			t.Errorf("%d samples (-want +got):\n%s", samples, diff)
		}
		if sum := got.Histogram.GetSampleSum() - want.Histogram.GetSampleSum(); sum > 1e-6 || sum < -1e-6 {
			t.Errorf("%d samples: got a sum of %g, want %g", samples, got.Histogram.GetSampleSum(), want.Histogram.GetSampleSum())
		}
	}
}

// fewSpans writes all buckets from the first to the last as one span, as the library fills
// small gaps between them.
func fewSpans(h *dto.Histogram) *dto.Histogram {
	counts := make(map[int32]int64)
	index, count, next := int32(0), int64(0), 0
	for _, span := range h.PositiveSpan {
		index += span.GetOffset()
		for range span.GetLength() {
			count += h.PositiveDelta[next]
			next++
			if count != 0 {
				counts[index] = count
			}
			index++
		}
	}
	h.PositiveSpan, h.PositiveDelta = nil, nil
	for index := int32(flows.RTTFirst); index < flows.RTTFirst+flows.RTTBuckets; index++ {
		h.PositiveDelta = append(h.PositiveDelta, counts[index])
	}
	return h
}

// Coarse buckets are at most eight, the infinite one counted, and some of the fine ones, so
// that older dashboards' quantiles stay sensible.
func TestCoarseBucketsAreSomeOfTheFine(t *testing.T) {
	fine, coarse := RTTBounds(RTTFine), RTTBounds(RTTCoarse)
	if len(coarse) > 7 || len(coarse) < 5 {
		t.Errorf("got %d coarse bounds, want 5 to 7", len(coarse))
	}
	for _, bound := range coarse {
		if !slices.Contains(fine, bound) {
			t.Errorf("got a coarse bound of %g s, want one of %v", bound, fine)
		}
	}
	if off := RTTBounds(RTTOff); len(off) != 0 {
		t.Errorf("off: got bounds %v, want none", off)
	}
}

// What a row of TCP health costs a server that takes no native histograms; docs/METRICS.md
// has the numbers.
func TestSeriesOfARow(t *testing.T) {
	for buckets, want := range map[RTTBuckets]int{RTTFine: 21, RTTCoarse: 14, RTTOff: 7, "": 14} {
		o := options(&source{snapshot: handMade(), agent: handMadeAgent()}, flows.Optional{})
		o.RTTBuckets = buckets
		answer := httptest.NewRecorder()
		promhttp.HandlerFor(newExporter(t, o).Registry(), promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		series := bytes.Count(answer.Body.Bytes(), []byte("\npodmeter_tcp_"))
		if got := series / 2; got != want || series%2 != 0 { // that of db and the folded one
			t.Errorf("%q: got %d series of two rows, want %d a row", buckets, series, want)
		}
		for _, part := range []string{`_bucket{`, "_sum{", "_count{"} {
			if !bytes.Contains(answer.Body.Bytes(), []byte("podmeter_tcp_rtt_seconds"+part)) {
				t.Errorf("%q: got no %s", buckets, part)
			}
		}
	}
}

// A server that asks for protobuf gets native buckets, and any the created timestamps of
// the earliest row.
func TestRTTOverHTTP(t *testing.T) {
	e := newExporter(t, options(&source{snapshot: handMade(), agent: handMadeAgent()}, flows.Optional{}))
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(e.Registry(), promhttp.HandlerOpts{}).ServeHTTP(answer, request)
	decoder := expfmt.NewDecoder(bytes.NewReader(answer.Body.Bytes()), expfmt.ResponseFormat(answer.Header()))
	for {
		var family dto.MetricFamily
		if err := decoder.Decode(&family); err != nil {
			t.Fatalf("find podmeter_tcp_rtt_seconds: %v", err)
		}
		if family.GetName() != "podmeter_tcp_rtt_seconds" {
			continue
		}
		if len(family.Metric) != 2 {
			t.Fatalf("got %d series, want that of db and the folded one", len(family.Metric))
		}
		for _, m := range family.Metric {
			h := m.Histogram
			if !h.GetCreatedTimestamp().AsTime().Equal(start) || h.Schema == nil || len(h.PositiveSpan) == 0 {
				t.Errorf("got %v, want native buckets, created at %v", h, start)
			}
		}
		db := family.Metric[slices.IndexFunc(family.Metric, func(m *dto.Metric) bool { return m.Histogram.GetSampleCount() > 0 })].Histogram
		if db.GetSampleCount() != 10 || db.GetZeroCount() != 1 || db.GetSampleSum() != 64.150123 {
			t.Errorf("got %v, want 10 samples", db)
		}
		return
	}
}
