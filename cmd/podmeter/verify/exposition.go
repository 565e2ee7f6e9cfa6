// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/podmeter/podmeter/flows"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Exposition is what a scrape of /metrics read: samples by the family's name.
type Exposition map[string][]Sample

// Sample is one series and its value. Counters of bytes and packets are whole
// numbers, which a float64 holds exactly up to 2^53.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Pod is what the series of pods are told apart by.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"pod"`
}

// String returns namespace/name, or the name alone if there is no namespace.
func (p Pod) String() string {
	if p.Namespace == "" {
		return p.Name
	}
	return p.Namespace + "/" + p.Name
}

// Compare orders pods by their namespaces and names.
func (p Pod) Compare(o Pod) int {
	return cmp.Or(cmp.Compare(p.Namespace, o.Namespace), cmp.Compare(p.Name, o.Name))
}

// Pod returns the pod whose series it is.
func (s Sample) Pod() Pod { return PodOf(s.Labels["namespace"], s.Labels["pod"]) }

// PodOf returns the pod with these names, as labels have them: bytes that are not UTF-8
// are one U+FFFD, however many there are and however they were replaced before.
func PodOf(namespace, name string) Pod { return Pod{labelled(namespace), labelled(name)} }

func labelled(name string) string {
	const replacement = string(utf8.RuneError)
	name = strings.ToValidUTF8(name, replacement)
	for strings.Contains(name, replacement+replacement) {
		name = strings.ReplaceAll(name, replacement+replacement, replacement)
	}
	return name
}

// Parse reads the text format.
func Parse(text []byte) (Exposition, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read the agent's metrics: %w", err)
	}
	e := make(Exposition, len(families))
	for name, family := range families {
		for _, m := range family.GetMetric() {
			labels := make(map[string]string, len(m.GetLabel()))
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			// All but one are 0: a metric has one type.
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
			e[name] = append(e[name], Sample{labels, value})
		}
	}
	return e, nil
}

// The families that carry what pods and uplinks sent and received.
const (
	FamilyPod             = "pod"
	FamilyFlow            = "flow"
	FamilyFlowRetired     = "flow_retired"
	FamilyExternal        = "external"
	FamilyExternalRetired = "external_retired"
	FamilyUplink          = "uplink"
	FamilyUplinkRetired   = "uplink_retired"
	FamilyUplinkInterface = "uplink_interface"
)

// Unit is what a counter counts.
type Unit string

// The units.
const (
	Bytes   Unit = "bytes"
	Packets Unit = "packets"
)

// of returns the counter of a unit.
func (u Unit) of(c flows.Counters) uint64 {
	if u == Bytes {
		return c.Bytes
	}
	return c.Packets
}

// Series is a counter's name: of a family, a direction and a unit.
func Series(family string, direction flows.Direction, u Unit) string {
	return fmt.Sprintf("podmeter_%s_%s_%s_total", family, direction, u)
}

// Sums adds up series by pod, those that keep wants; all if it is nil.
func (e Exposition) Sums(name string, keep func(labels map[string]string) bool) map[Pod]uint64 {
	sums := make(map[Pod]uint64)
	for _, s := range e[name] {
		if keep == nil || keep(s.Labels) {
			sums[s.Pod()] += uint64(s.Value)
		}
	}
	return sums
}

// Counters is a pod's bytes and packets in one direction.
func (e Exposition) Counters(pod Pod, direction flows.Direction) flows.Counters {
	return flows.Counters{
		Bytes:   e.Sums(Series(FamilyPod, direction, Bytes), nil)[pod],
		Packets: e.Sums(Series(FamilyPod, direction, Packets), nil)[pod],
	}
}

// total adds up series that have a label; all of the name's if the label is empty.
func (e Exposition) total(name, label, is string) (sum uint64) {
	for _, s := range e[name] {
		if label == "" || s.Labels[label] == is {
			sum += uint64(s.Value)
		}
	}
	return sum
}
