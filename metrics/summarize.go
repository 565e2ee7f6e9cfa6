// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// summarized gives histograms that have no classic buckets as summaries without quantiles, which
// are a sum and a count. It is for the formats of text: they know nothing of native buckets,
// and have a histogram's count twice, as a bucket of all that cannot be left out.
type summarized struct{ prometheus.Gatherer }

// Gather implements [prometheus.Gatherer]. What was gathered is its caller's own.
func (s summarized) Gather() ([]*dto.MetricFamily, error) {
	families, err := s.Gatherer.Gather()
	for _, family := range families {
		if onlyNative(family) {
			summarize(family)
		}
	}
	return families, err
}

func onlyNative(family *dto.MetricFamily) bool {
	if family.GetType() != dto.MetricType_HISTOGRAM {
		return false
	}
	for _, m := range family.GetMetric() {
		if len(m.GetHistogram().GetBucket()) > 0 {
			return false
		}
	}
	return true
}

func summarize(family *dto.MetricFamily) {
	family.Type = dto.MetricType_SUMMARY.Enum()
	all := make([]dto.Summary, len(family.GetMetric()))
	for i, m := range family.GetMetric() {
		h, s := m.GetHistogram(), &all[i]
		s.SampleCount, s.SampleSum, s.CreatedTimestamp = h.SampleCount, h.SampleSum, h.CreatedTimestamp
		m.Histogram, m.Summary = nil, s
	}
}
