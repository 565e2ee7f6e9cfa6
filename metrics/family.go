// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// column is a label of a family: its name and its value for a row.
type column[L any] struct {
	name  string
	value func(*flows.Series[L]) string
}

// family is a family of counters in both directions: of bytes and, unless it
// has none, of packets.
type family[L comparable] struct {
	columns []column[L] // sorted by name, as the registry wants labels
	clean   func(L) L
	// bytes and packets are indexed by flows.Direction.
	bytes, packets [flows.Directions]*prometheus.Desc
	// zero is whether a direction that had nothing is written as 0.
	zero bool
}

// What a family counts.
const (
	bytesOnly       = false
	bytesAndPackets = true
)

// newFamily returns the family podmeter_<name>_{transmit,receive}_{bytes,packets}_total.
// The help is completed by the unit before it and, in place of %s, by what the
// pod or the node did. clean makes labels valid and drops what has no column; nil leaves
// them alone.
func newFamily[L comparable](name, help string, packets bool, columns []column[L], clean func(L) L) family[L] {
	labels := sortColumns(columns)
	f := family[L]{columns: columns, clean: clean}
	did := [flows.Directions]string{flows.Transmit: "transmitted", flows.Receive: "received"}
	for d := range flows.Direction(flows.Directions) {
		desc := func(unit, noun string) *prometheus.Desc {
			return prometheus.NewDesc(
				prometheus.BuildFQName(namespace, name, d.String()+"_"+unit+"_total"),
				fmt.Sprintf(noun+" "+help+".", did[d]), labels, nil)
		}
		f.bytes[d] = desc("bytes", "Bytes")
		if packets {
			f.packets[d] = desc("packets", "Packets")
		}
	}
	return f
}

// always makes the family write directions that had nothing.
func (f family[L]) always() family[L] {
	f.zero = true
	return f
}

func (f *family[L]) describe(ch chan<- *prometheus.Desc) {
	for d := range f.bytes {
		ch <- f.bytes[d]
		if f.packets[d] != nil {
			ch <- f.packets[d]
		}
	}
}

func (f *family[L]) collect(all []flows.Series[L], ch chan<- prometheus.Metric) {
	rows := combine(all, f.clean)
	for i := range rows {
		f.row(&rows[i], ch)
	}
}

func (f *family[L]) row(s *flows.Series[L], ch chan<- prometheus.Metric) {
	labels := labelsOf(f.columns, s)
	for d := range flows.Direction(flows.Directions) {
		if s.Created[d].IsZero() && !f.zero {
			continue
		}
		created := timestamp(s.Created[d])
		ch <- newCounter(f.bytes[d], labels, s.Counters[d].Bytes, created)
		if f.packets[d] != nil {
			ch <- newCounter(f.packets[d], labels, s.Counters[d].Packets, created)
		}
	}
}

// sortColumns sorts by name, as the registry wants labels, and returns the names.
func sortColumns[L any](columns []column[L]) (names []string) {
	slices.SortFunc(columns, func(a, b column[L]) int { return strings.Compare(a.name, b.name) })
	for _, c := range columns {
		names = append(names, c.name)
	}
	return names
}

// labelsOf returns the labels that all series of a row share.
func labelsOf[L any](columns []column[L], s *flows.Series[L]) []*dto.LabelPair {
	pairs := make([]dto.LabelPair, len(columns))
	values := make([]string, len(columns))
	labels := make([]*dto.LabelPair, len(columns))
	for i := range columns {
		values[i] = columns[i].value(s)
		pairs[i].Name, pairs[i].Value = &columns[i].name, &values[i]
		labels[i] = &pairs[i]
	}
	return labels
}

// timestamp returns nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// counter is a constant counter. The library's own would do, but makes the
// labels anew for each of a row's four series, which is most of a scrape's
// work: see BenchmarkConstMetric.
type counter struct {
	desc    *prometheus.Desc
	labels  []*dto.LabelPair
	value   float64 // exact up to 2^53
	counter dto.Counter
}

func newCounter(desc *prometheus.Desc, labels []*dto.LabelPair, value uint64, created *timestamppb.Timestamp) *counter {
	c := &counter{desc: desc, labels: labels, value: float64(value)}
	c.counter.Value, c.counter.CreatedTimestamp = &c.value, created
	return c
}

// Desc implements [prometheus.Metric].
func (c *counter) Desc() *prometheus.Desc { return c.desc }

// Write implements [prometheus.Metric].
func (c *counter) Write(out *dto.Metric) error {
	out.Label, out.Counter = c.labels, &c.counter
	return nil
}

// identity is what the rows of a family are told apart by.
type identity[L comparable] struct {
	namespace, pod string
	labels         L
}

// combine returns the rows with clean labels, those whose labels are then equal
// added: a scrape with the same series twice would be refused as a whole.
func combine[L comparable](all []flows.Series[L], clean func(L) L) []flows.Series[L] {
	rows := make([]flows.Series[L], 0, len(all))
	at := make(map[identity[L]]int, len(all))
	for i := range all {
		s := all[i]
		s.Namespace, s.Pod = valid(s.Namespace), valid(s.Pod)
		if clean != nil {
			s.Labels = clean(s.Labels)
		}
		id := identity[L]{s.Namespace, s.Pod, s.Labels}
		if n, ok := at[id]; ok {
			add(&rows[n], &s)
			continue
		}
		at[id] = len(rows)
		rows = append(rows, s)
	}
	return rows
}

// add adds o's counters to s, which began when the earlier of both did.
func add[L any](s, o *flows.Series[L]) {
	for d := range s.Counters {
		s.Counters[d].Add(o.Counters[d])
		if s.Created[d].IsZero() || !o.Created[d].IsZero() && o.Created[d].Before(s.Created[d]) {
			s.Created[d] = o.Created[d]
		}
	}
}

// valid returns s as the value of a label. Whatever came here without it, a label is
// UTF-8, does nothing to a terminal and has a bound: so has a scrape.
func valid(s string) string { return plain.Text(s, plain.ValueLimit) }
