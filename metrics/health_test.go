// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
	"github.com/prometheus/client_golang/prometheus"
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
	t.Run("native", func(t *testing.T) { checkRTT(t, nil) })
	t.Run("both", func(t *testing.T) { checkRTT(t, RTTBounds()) })
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

// No classic bound is within a native bucket, which would have to be divided by guess.
func TestClassicBoundsAreNative(t *testing.T) {
	for _, bound := range RTTBounds() {
		if bucket := bucketOf(bound); rttBound(bucket) != bound {
			t.Errorf("got a bound of %g s, want one that a native bucket has: that to %g s has it within", bound, rttBound(bucket))
		}
	}
}

const protobufAccepted = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

// served is what a scraper gets that accepts a format.
func served(t *testing.T, o Options, accept string) *httptest.ResponseRecorder {
	t.Helper()
	answer, request := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", accept)
	unheld(newExporter(t, o)).ServeHTTP(answer, request)
	return answer
}

// What a row of TCP health costs a server: six series at most unless it is asked for more.
// docs/METRICS.md has the numbers.
func TestSeriesOfARow(t *testing.T) {
	for _, test := range []struct {
		accept  string
		classic bool
		want    int
		parts   []string // of the histogram
	}{
		{"text/plain", false, 6, []string{"_sum{", "_count{"}},
		{"application/openmetrics-text;version=1.0.0", false, 6, []string{"_sum{", "_count{"}},
		{"text/plain", true, 14, []string{"_bucket{", "_sum{", "_count{"}},
		{"application/openmetrics-text;version=1.0.0", true, 14, []string{"_bucket{", "_sum{", "_count{"}},
	} {
		o := options(&source{snapshot: handMade(), agent: handMadeAgent()}, flows.Optional{})
		o.ClassicRTT = test.classic
		text := served(t, o, test.accept).Body.Bytes()
		series := bytes.Count(text, []byte("\npodmeter_tcp_"))
		if got := series / 2; got != test.want || series%2 != 0 { // that of db and the folded one
			t.Errorf("%s, classic %v: got %d series of two rows, want %d a row", test.accept, test.classic, series, test.want)
		}
		for _, part := range []string{"_bucket{", "_sum{", "_count{"} {
			if got, want := bytes.Contains(text, []byte("podmeter_tcp_rtt_seconds"+part)), slices.Contains(test.parts, part); got != want {
				t.Errorf("%s, classic %v: got %s: %v, want %v", test.accept, test.classic, part, got, want)
			}
		}
	}
}

// A server that asks for protobuf gets native buckets, which are one series, and classic ones
// if there are to be; any gets the created timestamps of the earliest row.
func TestRTTOverHTTP(t *testing.T) {
	for _, classic := range []bool{false, true} {
		o := options(&source{snapshot: handMade(), agent: handMadeAgent()}, flows.Optional{})
		o.ClassicRTT = classic
		families := families(t, served(t, o, protobufAccepted))
		for name, family := range families {
			if strings.HasPrefix(name, "podmeter_tcp_") && len(family.Metric) != 2 {
				t.Errorf("%s: got %d series, want that of db and the folded one", name, len(family.Metric))
			}
		}
		want := 0
		if classic {
			want = len(RTTBounds())
		}
		all := families["podmeter_tcp_rtt_seconds"].GetMetric()
		for _, m := range all {
			h := m.Histogram
			if !h.GetCreatedTimestamp().AsTime().Equal(start) || h.Schema == nil || len(h.PositiveSpan) == 0 || len(h.Bucket) != want {
				t.Errorf("got %v, want native buckets and %d others, created at %v", h, want, start)
			}
		}
		db := all[slices.IndexFunc(all, func(m *dto.Metric) bool { return m.Histogram.GetSampleCount() > 0 })].Histogram
		if db.GetSampleCount() != 10 || db.GetZeroCount() != 1 || db.GetSampleSum() != 64.150123 {
			t.Errorf("got %v, want 10 samples", db)
		}
	}
}

// The sum and the count of text are those of the native histogram.
func TestRTTOfText(t *testing.T) {
	text := families(t, served(t, options(&source{snapshot: handMade(), agent: handMadeAgent()}, flows.Optional{}), "text/plain"))
	var count uint64
	var sum float64
	for _, m := range text["podmeter_tcp_rtt_seconds"].GetMetric() {
		count, sum = count+m.GetSummary().GetSampleCount(), sum+m.GetSummary().GetSampleSum()
	}
	if count != 10 || sum != 64.150123 {
		t.Errorf("got %d samples of %v s, want 10 of 64.150123 s", count, sum)
	}
	if got := text["podmeter_drain_duration_seconds"].GetType(); got != dto.MetricType_HISTOGRAM {
		t.Errorf("drains, which have classic buckets: got a %v, want a histogram", got)
	}
}

// families are those of an answer by their names.
func families(t *testing.T, answer *httptest.ResponseRecorder) map[string]*dto.MetricFamily {
	t.Helper()
	all := make(map[string]*dto.MetricFamily)
	decoder := expfmt.NewDecoder(bytes.NewReader(answer.Body.Bytes()), expfmt.ResponseFormat(answer.Header()))
	for {
		family := &dto.MetricFamily{}
		if err := decoder.Decode(family); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[family.GetName()] = family
	}
}
