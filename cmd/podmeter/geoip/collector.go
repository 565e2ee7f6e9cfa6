// SPDX-License-Identifier: Apache-2.0

package geoip

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// answer is the last good one.
type answer struct {
	mu   sync.Mutex
	rows []row
	at   time.Time // when it came; zero for none yet
}

func (a *answer) set(rows []row, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rows, a.at = rows, at
}

func (a *answer) get() ([]row, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rows, a.at
}

// collector exports the last good answer. Until there is one it exports nothing.
type collector struct {
	answer *answer
	now    func() time.Time
	geoIP  *prometheus.Desc
	age    *prometheus.Desc
}

func newCollector(a *answer, carry []string, now func() time.Time) *collector {
	return &collector{
		answer: a, now: now,
		geoIP: prometheus.NewDesc("geo_ip", "Value of the query's row for an address, with the place of the address.",
			append(placeLabels(), carry...), nil),
		age: prometheus.NewDesc("podmeter_geoip_answer_age_seconds",
			"How long ago the answer came that geo_ip shows; absent as long as there was none.", nil, nil),
	}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.geoIP
	ch <- c.age
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	rows, at := c.answer.get()
	if at.IsZero() {
		return
	}
	ch <- prometheus.MustNewConstMetric(c.age, prometheus.GaugeValue, c.now().Sub(at).Seconds())
	for _, r := range rows {
		ch <- prometheus.MustNewConstMetric(c.geoIP, prometheus.GaugeValue, r.value, r.labels()...)
	}
}

// own are the metrics about the work.
type own struct {
	queries *prometheus.CounterVec
	rows    *prometheus.CounterVec
	took    prometheus.Histogram
}

// newOwn returns them with every result there from the start, as 0.
func newOwn() own {
	o := own{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podmeter_geoip_queries_total", Help: "Queries to Prometheus by what came of them.",
		}, []string{"result"}),
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podmeter_geoip_rows_total", Help: "Rows of all answers by what came of them.",
		}, []string{"result"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "podmeter_geoip_query_duration_seconds", Help: "How long queries took, those that failed included.",
			Buckets:                         []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}),
	}
	for _, result := range queryResults() {
		o.queries.WithLabelValues(result)
	}
	for _, result := range rowResults() {
		o.rows.WithLabelValues(result)
	}
	return o
}
