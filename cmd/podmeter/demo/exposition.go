// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"fmt"

	"github.com/podmeter/podmeter/flows"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// exposition is what a scrape of /metrics read: samples by the family's name.
type exposition map[string][]sample

// sample is one series and its value. Counters of bytes and packets are whole
// numbers, which a float64 holds exactly up to 2^53.
type sample struct {
	labels map[string]string
	value  float64
}

// podName tells pods apart in the series.
type podName struct{ namespace, pod string }

func (n podName) String() string {
	if n.namespace == "" {
		return n.pod
	}
	return n.namespace + "/" + n.pod
}

func (s sample) pod() podName { return podName{s.labels["namespace"], s.labels["pod"]} }

// parseExposition reads the text format.
func parseExposition(text []byte) (exposition, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read the agent's metrics: %w", err)
	}
	e := make(exposition, len(families))
	for name, family := range families {
		for _, m := range family.GetMetric() {
			labels := make(map[string]string, len(m.GetLabel()))
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			// All but one are 0: a metric has one type.
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
			e[name] = append(e[name], sample{labels, value})
		}
	}
	return e, nil
}

// The families that carry what pods sent and received.
const (
	podFamily             = "pod"
	flowFamily            = "flow"
	flowRetiredFamily     = "flow_retired"
	externalFamily        = "external"
	externalRetiredFamily = "external_retired"
)

const conservationError = "podmeter_conservation_error_bytes_total"

// unit is what a counter counts.
type unit string

const (
	inBytes   unit = "bytes"
	inPackets unit = "packets"
)

// series is a counter's name: of a family, a direction and a unit.
func series(family string, direction flows.Direction, u unit) string {
	return fmt.Sprintf("podmeter_%s_%s_%s_total", family, direction, u)
}

// sums adds up a family's series by pod, those that keep wants.
func (e exposition) sums(name string, keep func(labels map[string]string) bool) map[podName]uint64 {
	sums := make(map[podName]uint64)
	for _, s := range e[name] {
		if keep == nil || keep(s.labels) {
			sums[s.pod()] += uint64(s.value)
		}
	}
	return sums
}

// counters is a pod's bytes and packets in one direction.
func (e exposition) counters(pod podName, direction flows.Direction) flows.Counters {
	return flows.Counters{
		Bytes:   e.sums(series(podFamily, direction, inBytes), nil)[pod],
		Packets: e.sums(series(podFamily, direction, inPackets), nil)[pod],
	}
}
