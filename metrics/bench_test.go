// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/metrics/guard"
	"github.com/prometheus/client_golang/prometheus"
)

// large returns a snapshot whose scrape has about n series of traffic.
func large(n int) *flows.Snapshot {
	s := &flows.Snapshot{}
	for pod := range max(1, n/400) {
		s.Pods = append(s.Pods, flows.Series[flows.NoLabels]{Namespace: "default",
			Pod: fmt.Sprint("web-5d4f8c7b9-", pod), Counters: counters(1e9, 1e9), Created: both})
	}
	for i := range (n - 4*len(s.Pods)) / 4 {
		s.Flows = append(s.Flows, flows.Series[flows.FlowLabels]{Namespace: "default",
			Pod: s.Pods[i%len(s.Pods)].Pod, Counters: counters(1e9, 1e9), Created: both,
			Labels: flows.FlowLabels{Container: "web", Workload: flows.Workload{Type: "deployment", Name: "web"},
				PeerKind: flows.PeerPod, Locality: flows.LocalitySameZone, Protocol: flows.ProtoTCP,
				PeerNamespace: "data", Peer: fmt.Sprint("database-", i/len(s.Pods)), PeerWorkloadType: "statefulset",
				Service: "database"}})
	}
	return s
}

// unheld is the handler of /metrics, without a bound on how much it works.
func unheld(e *Exporter) http.Handler {
	handler := newMetricsHandler(ServerOptions{Registry: e.Registry(), Logger: options(nil, flows.Optional{}).Logger})
	handler.(*scrapes).share = guard.NewShare(1000, time.Hour)
	return handler
}

// BenchmarkScrape is a whole request for /metrics, by format and compression.
func BenchmarkScrape(b *testing.B) {
	for _, format := range []struct{ name, accept, encoding string }{
		{"text", "text/plain", "identity"},
		{"gzip", "text/plain", "gzip"},
		{"protobuf", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "identity"},
	} {
		for _, n := range []int{1_000, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", format.name, n), func(b *testing.B) {
				e := newExporter(b, options(&source{snapshot: large(n)}, flows.Optional{}))
				handler := unheld(e)
				request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
				request.Header.Set("Accept", format.accept)
				request.Header.Set("Accept-Encoding", format.encoding)
				reportPerSeries(b, n, func() { handler.ServeHTTP(discard{http.Header{}}, request) })
			})
		}
	}
}

// BenchmarkScrapeHealth is that of 2,000 rows with the health of their connections, beside
// the series of their bytes: as many as the default limit has.
func BenchmarkScrapeHealth(b *testing.B) {
	s := large(4 * 2000)
	for i := range s.Flows {
		h := flows.HealthSeries{Namespace: s.Flows[i].Namespace, Pod: s.Flows[i].Pod, Labels: s.Flows[i].Labels, Created: start}
		for bucket := range 20 {
			h.Health.RTT[bucket+i%20] = uint64(bucket)
		}
		s.Health = append(s.Health, h)
	}
	for _, format := range []struct {
		name, accept string
		classic      bool
		series       int // of a row
	}{
		{"text", "text/plain", false, 6},
		{"protobuf", protobufAccepted, false, 5},
		{"classic", "text/plain", true, 14},
	} {
		b.Run(format.name, func(b *testing.B) {
			o := options(&source{snapshot: s}, flows.Optional{})
			o.ClassicRTT = format.classic
			e := newExporter(b, o)
			handler := unheld(e)
			request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			request.Header.Set("Accept", format.accept)
			request.Header.Set("Accept-Encoding", "gzip")
			reportPerSeries(b, 4*2000+format.series*len(s.Health), func() { handler.ServeHTTP(discard{http.Header{}}, request) })
		})
	}
}

// BenchmarkGather is the same without the encoding.
func BenchmarkGather(b *testing.B) {
	benchmarkGather(b, func(s *flows.Snapshot) prometheus.Collector {
		return newCollector(options(&source{snapshot: s}, flows.Optional{}))
	})
}

// BenchmarkConstMetric is BenchmarkGather with the library's constant metrics,
// to see whether our own still earn their place.
func BenchmarkConstMetric(b *testing.B) {
	benchmarkGather(b, func(s *flows.Snapshot) prometheus.Collector {
		return &constCollector{newCollector(options(&source{snapshot: s}, flows.Optional{})), s}
	})
}

func benchmarkGather(b *testing.B, make func(*flows.Snapshot) prometheus.Collector) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			registry := prometheus.NewRegistry()
			registry.MustRegister(make(large(n)))
			reportPerSeries(b, n, func() {
				if _, err := registry.Gather(); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}

func reportPerSeries(b *testing.B, series int, run func()) {
	b.ReportAllocs()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b.Loop() {
		run()
	}
	runtime.ReadMemStats(&after)
	per := float64(b.N) * float64(series)
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/per, "allocs/series")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/per, "ns/series")
}

type constCollector struct {
	*collector
	snapshot *flows.Snapshot
}

func (c *constCollector) Collect(ch chan<- prometheus.Metric) {
	collectConst(&c.pods, c.snapshot.Pods, ch)
	collectConst(&c.flows, c.snapshot.Flows, ch)
}

func collectConst[L comparable](f *family[L], all []flows.Series[L], ch chan<- prometheus.Metric) {
	values := make([]string, len(f.columns))
	for _, s := range combine(all, f.clean) {
		for i := range f.columns {
			values[i] = f.columns[i].value(&s)
		}
		for d := range s.Counters {
			ch <- prometheus.MustNewConstMetricWithCreatedTimestamp(f.bytes[d], prometheus.CounterValue,
				float64(s.Counters[d].Bytes), s.Created[d], values...)
			ch <- prometheus.MustNewConstMetricWithCreatedTimestamp(f.packets[d], prometheus.CounterValue,
				float64(s.Counters[d].Packets), s.Created[d], values...)
		}
	}
}

// discard is a response that nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return io.Discard.Write(p) }
func (d discard) WriteHeader(int)             {}
