// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/promtest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
)

// both runs a test with each of the Prometheuses, which differ by the protocol that they
// take. The global configuration is what they need to scrape all that is written.
func both(t *testing.T, test func(t *testing.T, binary, version, global string)) {
	t.Run("2.0", func(t *testing.T) {
		t.Parallel()
		test(t, promtest.Current(t), "2.0.0", "{scrape_native_histograms: true, always_scrape_classic_histograms: true}")
	})
	t.Run("1.0", func(t *testing.T) {
		t.Parallel()
		test(t, promtest.Debian(t), "0.1.0", "{}")
	})
}

const takesWrites = "--web.enable-remote-write-receiver"

// scraping is a configuration that scrapes metrics as well, every second.
func scraping(t *testing.T, metrics prometheus.Gatherer, global string) string {
	target := httptest.NewServer(promhttp.HandlerFor(metrics, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	t.Cleanup(target.Close)
	return fmt.Sprintf(`{global: %s,
scrape_configs: [{job_name: scraped, scrape_interval: 1s, scrape_timeout: 1s, static_configs: [{targets: [%q]}]}]}`,
		global, strings.TrimPrefix(target.URL, "http://"))
}

// link is the way to a server. It notes the protocols of what was taken, and fails as it is
// told, once for each fault.
type link struct {
	mu       sync.Mutex
	versions map[string]int
	faults   []func(taken *http.Response) (*http.Response, error)
}

// RoundTrip implements [http.RoundTripper].
func (l *link) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := http.DefaultTransport.RoundTrip(request)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || response.StatusCode/100 != 2 {
		return response, err
	}
	l.versions[request.Header.Get("X-Prometheus-Remote-Write-Version")]++
	if len(l.faults) > 0 {
		fault := l.faults[0]
		l.faults = l.faults[1:]
		response.Body.Close()
		return fault(response)
	}
	return response, nil
}

// fail makes the answers to the next requests go missing, or be others.
func (l *link) fail() {
	lost := func(*http.Response) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }
	refused := func(r *http.Response) (*http.Response, error) {
		r.StatusCode, r.Body = http.StatusTooManyRequests, http.NoBody
		return r, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, lost, refused)
}

// taken returns how many requests were taken by each protocol.
func (l *link) taken() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.versions)
}

// A Prometheus has what was gathered, as it does by scraping, by the latest protocol that it
// knows. A series that is no more ends, and so do all at the end. No sample is lost or there
// twice when answers get lost, nor in an outage, by SIGKILL, in which the writer restarts.
func TestWithPrometheus(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, binary, version, global string) {
		registry := prometheus.NewRegistry()
		bytes := metricsOfAllTypes(registry)
		s := promtest.New(t, binary, scraping(t, registry, global), takesWrites)
		// One more at each sample, so that a lost one shows.
		rounds, samples := prometheus.NewCounter(prometheus.CounterOpts{Name: "rounds_total"}), prometheus.NewRegistry()
		samples.MustRegister(rounds, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sampled"}, func() float64 { rounds.Inc(); return 1 }))
		l := &link{versions: make(map[string]int)}
		o := Options{
			URLs: []string{s.URL + "/api/v1/write"}, Gatherer: prometheus.Gatherers{registry, samples}, Interval: 100 * time.Millisecond,
			Labels: map[string]string{"job": "podmeter", "instance": "node-a", "node": "node-a", "cluster": "c"}, NativeHistograms: true,
			Client: &http.Client{Transport: l}, Spool: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		}
		w, stop := running(t, o)
		s.Await(`bytes_total{pod="web", job="podmeter", instance="node-a", node="node-a", cluster="c"}`, "12345678901")
		s.Await(`up{job="podmeter", instance="node-a", node="node-a", cluster="c"}`, "1")
		bytes.DeleteLabelValues("db")
		s.Await(`bytes_total{pod="db", job="podmeter"}`, "none")
		l.fail()
		bytes.WithLabelValues("web").Add(10)
		awaitRetries(t, w, 2)
		s.Await(`bytes_total{pod="web", job="podmeter"}`, "12345678911")

		s.Stop(syscall.SIGKILL)
		bytes.WithLabelValues("web").Add(9)
		stop()
		checkOutcomes(t, w)
		w, stop = running(t, o)
		awaitRetries(t, w, 1)
		s.Start()
		bytes.WithLabelValues("web").Add(80)
		s.Await(`bytes_total{pod="web", job="podmeter"}`, "12345679000")
		checkSameAsScraped(t, s, version == "2.0.0")
		stop()
		checkOutcomes(t, w)
		s.Await(`count({job="podmeter"})`, "none") // all have ended
		s.Await(`resets(bytes_total{pod="web", job="podmeter"}[5m])`, "0")
		s.Await(fmt.Sprintf(`count_over_time(rounds_total[5m]) == bool %v`, testutil.ToFloat64(rounds)), "1")
		if taken := l.taken(); taken[version] == 0 || version == "2.0.0" && len(taken) != 1 {
			t.Errorf("got requests of the protocols %v taken, want them to be %s", taken, version)
		}
	})
}

// metricsOfAllTypes registers some that do not change, and returns a counter.
func metricsOfAllTypes(registry *prometheus.Registry) *prometheus.CounterVec {
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bytes_total", Help: "Bytes."}, []string{"pod"})
	bytes.WithLabelValues("web").Add(12345678901)
	bytes.WithLabelValues("db").Add(1)
	took := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "took", Buckets: []float64{.5, 1}, NativeHistogramBucketFactor: 2})
	took.Observe(.75)
	took.Observe(7)
	lasted := prometheus.NewSummary(prometheus.SummaryOpts{Name: "lasted", Objectives: map[float64]float64{.5: .1, 1: 0}, MaxAge: time.Hour})
	lasted.Observe(3)
	age := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "age"}, func() float64 { return math.Inf(1) })
	registry.MustRegister(bytes, took, lasted, age)
	return bytes
}

// running runs a writer until stop is called.
func running(t *testing.T, o Options) (w *Writer, stop func()) {
	t.Helper()
	w, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { _ = w.Run(ctx) })
	stop = func() {
		cancel()
		group.Wait()
	}
	t.Cleanup(stop)
	return w, stop
}

func outcome(w *Writer, name string) float64 {
	return testutil.ToFloat64(w.counts.requests.WithLabelValues(w.senders[0].name, name))
}

// awaitRetries waits until so many requests could not be sent at once.
func awaitRetries(t *testing.T, w *Writer, count float64) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); outcome(w, outcomeRetried) < count; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("got %v requests tried again, want %v", outcome(w, outcomeRetried), count)
		}
	}
}

func checkOutcomes(t *testing.T, w *Writer) {
	t.Helper()
	for _, name := range []string{outcomeRefused, outcomeDropped} {
		if n := outcome(w, name); n != 0 {
			t.Errorf("got %v requests %s, want none", n, name)
		}
	}
}

// checkSameAsScraped compares what was written with what the same server scraped.
func checkSameAsScraped(t *testing.T, s *promtest.Server, natives bool) {
	t.Helper()
	all := func(job string) map[string]string {
		found, err := s.Query(fmt.Sprintf(`{job=%q, __name__!~"up|scrape_.+|rounds_total|sampled"}`, job))
		if err != nil {
			t.Fatal(err)
		}
		values := make(map[string]string)
		for _, series := range found {
			for _, given := range []model.LabelName{"job", "instance", "node", "cluster"} {
				delete(series.Metric, given)
			}
			values[series.Metric.String()] = fmt.Sprint(series.Value, series.Histogram)
		}
		return values
	}
	var diff string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		written, scraped := all("podmeter"), all("scraped")
		if _, there := scraped["took"]; there != natives {
			diff = fmt.Sprintf("native histogram scraped: got %v, want %v", there, natives)
			continue
		}
		if diff = cmp.Diff(scraped, written); diff == "" && len(scraped) >= 10 {
			return
		}
	}
	t.Errorf("what is written is not what is scraped (-scraped +written):\n%s", diff)
}

// What waited for longer than a Prometheus takes is refused and counted, and with an
// out-of-order window it is taken; the last sample is there in any case.
func TestLongOutage(t *testing.T) {
	t.Parallel()
	ages := []time.Duration{100 * time.Minute, 80 * time.Minute, 70 * time.Minute, 50 * time.Minute, 30 * time.Minute, 10 * time.Minute, 0}
	for window, refused := range map[string]int{"0s": 3, "2h": 0} {
		t.Run("window "+window, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, binary, _, _ string) {
				registry := prometheus.NewRegistry()
				counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "bytes_total"})
				registry.MustRegister(counter)
				s := promtest.New(t, binary, fmt.Sprintf("storage: {tsdb: {out_of_order_time_window: %s}}", window), takesWrites)
				of := func(job string) *Writer {
					return newTestWriter(t, Options{URLs: []string{s.URL + "/api/v1/write"}, Gatherer: registry, Labels: map[string]string{"job": job}})
				}
				now := time.Now()
				other := of("other") // gives it a sample of now
				other.sample(now)
				other.senders[0].flush(t.Context())
				w := of("podmeter")
				for _, age := range ages {
					counter.Add(10)
					w.sample(now.Add(-age))
				}
				w.senders[0].flush(t.Context())
				s.Await(`bytes_total{job="podmeter"}`, "70")
				s.Await(`count_over_time(bytes_total{job="podmeter"}[2h])`, fmt.Sprint(len(ages)-refused))
				if got := outcome(w, outcomeRefused); got != float64(refused) {
					t.Errorf("got %v requests refused, want %d", got, refused)
				}
				if got := outcome(w, outcomeSent); got != float64(len(ages)-refused) {
					t.Errorf("got %v requests sent, want %d", got, len(ages)-refused)
				}
			})
		})
	}
}

// A Prometheus that is told to keep when counters began is told so by protocol 2.0.
func TestCreated(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	metricsOfAllTypes(registry)
	s := promtest.New(t, promtest.Current(t), "{}", takesWrites, "--enable-feature=created-timestamp-zero-ingestion")
	w := newTestWriter(t, Options{URLs: []string{s.URL + "/api/v1/write"}, Gatherer: registry, NativeHistograms: true})
	w.sample(time.Now().Add(time.Millisecond)) // later than they began
	w.senders[0].flush(t.Context())
	for _, series := range []string{`bytes_total{pod="web"}`, "took_count", `took_bucket{le="1.0"}`, "lasted_sum", "took"} {
		s.Await("count_over_time("+series+"[5m])", "2") // 0 when it began, and the sample
	}
	s.Await(`min_over_time(bytes_total{pod="web"}[5m])`, "0")
	s.Await("count_over_time(age[5m])", "1")
	checkOutcomes(t, w)
}
