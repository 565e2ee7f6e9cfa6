// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"github.com/podmeter/podmeter/flows"
	"github.com/prometheus/client_golang/prometheus"
)

// foreignFamily is the counter of what pods sent from addresses that are not theirs.
type foreignFamily struct {
	columns []column[flows.NoLabels]
	desc    *prometheus.Desc
}

func newForeignFamily() foreignFamily {
	columns := podColumns[flows.NoLabels]()
	return foreignFamily{columns, prometheus.NewDesc(
		prometheus.BuildFQName(namespace, "pod", "foreign_source_bytes_total"),
		"Bytes that pods transmitted from addresses that are not their own, a part of what they transmitted.",
		sortColumns(columns), nil)}
}

// collect writes a row for each pod, 0 included, so that the first bytes are an increase.
func (f *foreignFamily) collect(all []flows.Series[flows.NoLabels], ch chan<- prometheus.Metric) {
	rows := combine(all, nil)
	for i := range rows {
		s := &rows[i]
		ch <- newCounter(f.desc, labelsOf(f.columns, s), s.Counters[flows.Transmit].Bytes, timestamp(s.Created[flows.Transmit]))
	}
}
