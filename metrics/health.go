// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"
	"slices"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// healthFamilies are the families of how TCP connections do: the rows and labels of the
// flow family, but for the protocol.
type healthFamilies struct {
	columns  []column[flows.FlowLabels]
	clean    func(flows.FlowLabels) flows.FlowLabels
	rtt      *prometheus.Desc
	bounds   []float64 // of classic buckets of RTTs
	counters []healthCounter
}

type healthCounter struct {
	desc  *prometheus.Desc
	value func(*flows.Health) uint64
}

func newHealthFamilies(o flows.Optional, rttBounds []float64) healthFamilies {
	columns := slices.DeleteFunc(flowColumns(o), func(c column[flows.FlowLabels]) bool { return c.name == "protocol" })
	labels := sortColumns(columns)
	clean := cleanFlow(o)
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "tcp", name), help, labels, nil)
	}
	return healthFamilies{
		columns: columns,
		clean: func(l flows.FlowLabels) flows.FlowLabels {
			l.Protocol = flows.ProtoTCP
			return clean(l)
		},
		rtt:    desc("rtt_seconds", "Smoothed round-trip times of TCP connections, sampled while they live."),
		bounds: rttBounds,
		counters: []healthCounter{
			{desc("retransmitted_segments_total", "Segments that TCP connections sent again."),
				func(h *flows.Health) uint64 { return h.RetransmittedSegments }},
			{desc("retransmitted_bytes_total", "Bytes of payload that TCP connections sent again."),
				func(h *flows.Health) uint64 { return h.RetransmittedBytes }},
			{desc("connections_opened_total", "TCP connections that were established, at either end."),
				func(h *flows.Health) uint64 { return h.Opened }},
			{desc("connections_failed_total", "TCP connections that pods began and that were not established."),
				func(h *flows.Health) uint64 { return h.Failed }},
		},
	}
}

func (f *healthFamilies) describe(ch chan<- *prometheus.Desc) {
	ch <- f.rtt
	for _, c := range f.counters {
		ch <- c.desc
	}
}

func (f *healthFamilies) collect(all []flows.HealthSeries, ch chan<- prometheus.Metric) {
	rows := f.combine(all)
	for i := range rows {
		s := &rows[i]
		labels := labelsOf(f.columns, &flows.Series[flows.FlowLabels]{Namespace: s.Namespace, Pod: s.Pod, Labels: s.Labels})
		created := timestamp(s.Created)
		ch <- newRTT(f.rtt, labels, f.bounds, &s.Health, created)
		for _, c := range f.counters {
			ch <- newCounter(c.desc, labels, c.value(&s.Health), created)
		}
	}
}

// combine is that of the other families: a row whose protocol is none, as a limit folded
// it, may be equal to another without it.
func (f *healthFamilies) combine(all []flows.HealthSeries) []flows.HealthSeries {
	rows := make([]flows.HealthSeries, 0, len(all))
	at := make(map[identity[flows.FlowLabels]]int, len(all))
	for i := range all {
		s := all[i]
		s.Namespace, s.Pod, s.Labels = valid(s.Namespace), valid(s.Pod), f.clean(s.Labels)
		id := identity[flows.FlowLabels]{s.Namespace, s.Pod, s.Labels}
		n, ok := at[id]
		if !ok {
			at[id] = len(rows)
			rows = append(rows, s)
			continue
		}
		rows[n].Health.Add(&s.Health)
		if s.Created.Before(rows[n].Created) {
			rows[n].Created = s.Created
		}
	}
	return rows
}

// RTTBounds returns the upper bounds of the classic buckets in seconds: from 977 us to 4 s a
// factor of four each. They are powers of two, which the bounds of native buckets are too, so
// that each classic one is a sum of whole native ones.
func RTTBounds() []float64 {
	return []float64{math.Exp2(-10), math.Exp2(-8), math.Exp2(-6), math.Exp2(-4), math.Exp2(-2), 1, 4}
}

// rtt is a constant histogram with native buckets, and classic ones if there are bounds. The
// library makes none with both.
type rtt struct {
	desc      *prometheus.Desc
	labels    []*dto.LabelPair
	histogram *dto.Histogram
}

func newRTT(desc *prometheus.Desc, labels []*dto.LabelPair, bounds []float64, h *flows.Health, created *timestamppb.Timestamp) *rtt {
	histogram := &dto.Histogram{
		SampleSum: new(float64(h.RTTSum) / float64(time.Second/time.Microsecond)), CreatedTimestamp: created,
		Schema: new(int32(flows.RTTSchema)), ZeroThreshold: &flows.RTTZero, ZeroCount: &h.RTT[0],
	}
	histogram.Bucket, histogram.SampleCount = classicBuckets(bounds, h)
	histogram.PositiveSpan, histogram.PositiveDelta = nativeBuckets(h)
	return &rtt{desc, labels, histogram}
}

// Desc implements [prometheus.Metric].
func (r *rtt) Desc() *prometheus.Desc { return r.desc }

// Write implements [prometheus.Metric].
func (r *rtt) Write(out *dto.Metric) error {
	out.Label, out.Histogram = r.labels, r.histogram
	return nil
}

// classicBuckets also returns the count of all samples.
func classicBuckets(bounds []float64, h *flows.Health) ([]*dto.Bucket, *uint64) {
	buckets := make([]*dto.Bucket, len(bounds))
	var count uint64
	next := 0
	for i, bound := range bounds {
		for ; next < len(h.RTT) && rttBound(next) <= bound; next++ {
			count += h.RTT[next]
		}
		buckets[i] = &dto.Bucket{UpperBound: &bounds[i], CumulativeCount: new(count)}
	}
	for ; next < len(h.RTT); next++ {
		count += h.RTT[next]
	}
	return buckets, &count
}

// rttBound is the upper bound of a bucket in seconds; for powers of two it is exact.
func rttBound(bucket int) float64 {
	if bucket == 0 {
		return flows.RTTZero
	}
	return math.Exp2(float64(flows.RTTFirst+bucket-1) / 2)
}

// nativeBuckets returns the spans of buckets that are not empty and, of each bucket in
// them, the difference to the one before it. Without any sample there is one span of none,
// which tells a native histogram from one that is not.
func nativeBuckets(h *flows.Health) (spans []*dto.BucketSpan, deltas []int64) {
	var before uint64
	end := int32(0) // the index after the last span
	for bucket := 1; bucket < len(h.RTT); bucket++ {
		n := h.RTT[bucket]
		if n == 0 {
			continue
		}
		index := int32(flows.RTTFirst + bucket - 1)
		if len(spans) == 0 || index != end {
			spans = append(spans, &dto.BucketSpan{Offset: new(index - end), Length: new(uint32(0))})
		}
		*spans[len(spans)-1].Length++
		deltas = append(deltas, int64(n)-int64(before))
		before, end = n, index+1
	}
	if len(spans) == 0 {
		spans = []*dto.BucketSpan{{Offset: new(int32(0)), Length: new(uint32(0))}}
	}
	return spans, deltas
}
