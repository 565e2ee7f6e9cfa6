// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The values of the label outcome.
const (
	outcomeSent    = "sent"
	outcomeRetried = "retried" // it failed, and is tried again
	outcomeRefused = "refused" // the receiver does not take it, or it is damaged
	outcomeDropped = "dropped" // the spool was full
)

// counts are a writer's own metrics.
type counts struct {
	requests    *prometheus.CounterVec
	lastSuccess *prometheus.GaugeVec
	spooled     *prometheus.GaugeVec
}

func newCounts() *counts {
	return &counts{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "podmeter_remote_write_requests_total",
			Help: "Requests of remote write, by what came of them: sent; retried (failed, and tried again); refused by the receiver, or damaged in the spool, and given up; dropped from a full spool.",
		}, []string{"receiver", "outcome"}),
		lastSuccess: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "podmeter_remote_write_last_success_timestamp_seconds",
			Help: "When a receiver last took a request.",
		}, []string{"receiver"}),
		spooled: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "podmeter_remote_write_spool_bytes",
			Help: "Bytes on disk that wait to be sent.",
		}, []string{"receiver"}),
	}
}

func (c *counts) known(receiver string) {
	for _, outcome := range []string{outcomeSent, outcomeRetried, outcomeRefused, outcomeDropped} {
		c.requests.WithLabelValues(receiver, outcome)
	}
	c.lastSuccess.WithLabelValues(receiver)
}

func (c *counts) add(receiver, outcome string) { c.requests.WithLabelValues(receiver, outcome).Inc() }

func (c *counts) succeeded(receiver string, at time.Time) {
	c.lastSuccess.WithLabelValues(receiver).Set(float64(at.UnixMilli()) / 1000)
}

// Describe implements [prometheus.Collector].
func (w *Writer) Describe(ch chan<- *prometheus.Desc) {
	w.counts.requests.Describe(ch)
	w.counts.lastSuccess.Describe(ch)
	w.counts.spooled.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (w *Writer) Collect(ch chan<- prometheus.Metric) {
	for _, s := range w.senders {
		w.counts.spooled.WithLabelValues(s.name).Set(float64(s.spool.size()))
	}
	w.counts.requests.Collect(ch)
	w.counts.lastSuccess.Collect(ch)
	w.counts.spooled.Collect(ch)
}
