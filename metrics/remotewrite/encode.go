// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	remote "github.com/prometheus/client_golang/exp/api/remote/genproto/v2"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// requestSeries is the most series of a request: some 100 kB compressed.
const requestSeries = 2000

// staleNaN is the value that ends a series (model/value in Prometheus).
var staleNaN = math.Float64frombits(0x7ff0000000000002)

// label is a name and a value.
type label struct{ name, value string }

// encoder turns what was gathered into requests, and remembers the series of the last
// time, to end those that are no more.
type encoder struct {
	// added are the labels that a scrape configuration would give.
	added []label
	// natives is whether native histograms are sent beside the classic ones.
	natives bool
	last    map[string][]label

	now      int64 // milliseconds
	seen     map[string][]label
	requests []*remote.Request
	symbols  remote.SymbolsTable
}

// encode returns requests with a sample for each series at this time, and a staleness
// marker for those that the last call had and this one has not.
func (e *encoder) encode(families []*dto.MetricFamily, now time.Time) []*remote.Request {
	e.now, e.seen, e.requests = now.UnixMilli(), make(map[string][]label), nil
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			e.metric(family, metric)
		}
	}
	for key, labels := range e.last {
		if _, there := e.seen[key]; !there {
			e.append(labels, &remote.TimeSeries{Samples: []*remote.Sample{{Value: staleNaN, Timestamp: e.now}}})
		}
	}
	e.last = e.seen
	return e.end()
}

// finish returns requests that end all series.
func (e *encoder) finish(now time.Time) []*remote.Request { return e.encode(nil, now) }

func (e *encoder) metric(family *dto.MetricFamily, metric *dto.Metric) {
	name := family.GetName()
	switch family.GetType() {
	case dto.MetricType_COUNTER:
		e.sample(family, name, metric, nil, metric.GetCounter().GetValue(), metric.GetCounter().GetCreatedTimestamp())
	case dto.MetricType_GAUGE:
		e.sample(family, name, metric, nil, metric.GetGauge().GetValue(), nil)
	case dto.MetricType_UNTYPED:
		e.sample(family, name, metric, nil, metric.GetUntyped().GetValue(), nil)
	case dto.MetricType_SUMMARY:
		e.summary(family, metric)
	case dto.MetricType_HISTOGRAM:
		e.histogram(family, metric)
	}
}

func (e *encoder) summary(family *dto.MetricFamily, metric *dto.Metric) {
	s, name := metric.GetSummary(), family.GetName()
	for _, q := range s.GetQuantile() {
		e.sample(family, name, metric, &label{"quantile", number(q.GetQuantile())}, q.GetValue(), nil)
	}
	e.sample(family, name+"_sum", metric, nil, s.GetSampleSum(), s.GetCreatedTimestamp())
	e.sample(family, name+"_count", metric, nil, float64(s.GetSampleCount()), s.GetCreatedTimestamp())
}

// histogram adds the classic series, and the native histogram if there is one.
func (e *encoder) histogram(family *dto.MetricFamily, metric *dto.Metric) {
	h, name := metric.GetHistogram(), family.GetName()
	created, infinite := h.GetCreatedTimestamp(), false
	for _, b := range h.GetBucket() {
		infinite = infinite || math.IsInf(b.GetUpperBound(), 1)
		e.sample(family, name+"_bucket", metric, &label{"le", number(b.GetUpperBound())}, float64(b.GetCumulativeCount()), created)
	}
	if !infinite {
		e.sample(family, name+"_bucket", metric, &label{"le", "+Inf"}, float64(h.GetSampleCount()), created)
	}
	e.sample(family, name+"_sum", metric, nil, h.GetSampleSum(), created)
	e.sample(family, name+"_count", metric, nil, float64(h.GetSampleCount()), created)
	if !e.natives || len(h.GetPositiveSpan())+len(h.GetNegativeSpan()) == 0 {
		return
	}
	n := native(h, e.now)
	start(n, histogramStart, milliseconds(created))
	e.series(family, name, metric, nil, &remote.TimeSeries{Histograms: []*remote.Histogram{n}, CreatedTimestamp: milliseconds(created)})
}

// native returns a native histogram of integer counts, as the client library makes them.
func native(h *dto.Histogram, now int64) *remote.Histogram {
	return &remote.Histogram{
		Count: &remote.Histogram_CountInt{CountInt: h.GetSampleCount()}, Sum: h.GetSampleSum(),
		Schema: h.GetSchema(), ZeroThreshold: h.GetZeroThreshold(),
		ZeroCount:     &remote.Histogram_ZeroCountInt{ZeroCountInt: h.GetZeroCount()},
		NegativeSpans: spans(h.GetNegativeSpan()), NegativeDeltas: h.GetNegativeDelta(),
		PositiveSpans: spans(h.GetPositiveSpan()), PositiveDeltas: h.GetPositiveDelta(),
		Timestamp: now,
	}
}

func spans(all []*dto.BucketSpan) (to []*remote.BucketSpan) {
	for _, s := range all {
		to = append(to, &remote.BucketSpan{Offset: s.GetOffset(), Length: s.GetLength()})
	}
	return to
}

func (e *encoder) sample(f *dto.MetricFamily, name string, m *dto.Metric, extra *label, value float64, created *timestamppb.Timestamp) {
	s := &remote.Sample{Value: value, Timestamp: e.now}
	start(s, sampleStart, milliseconds(created))
	e.series(f, name, m, extra, &remote.TimeSeries{Samples: []*remote.Sample{s}, CreatedTimestamp: milliseconds(created)})
}

// The numbers of the fields start_timestamp of a Sample and of a Histogram, where protocol 2.0
// as released has what its drafts had in TimeSeries (prompb/io/prometheus/write/v2/types.proto in
// Prometheus). The types that are used here know the draft's alone.
const (
	sampleStart    = 3
	histogramStart = 17
)

// start adds when a counter began, in milliseconds, for receivers of protocol 2.0 as released.
// Those of its drafts skip it, and read the created timestamp of the series.
func start(m proto.Message, field protowire.Number, at int64) {
	if at != 0 {
		b := protowire.AppendTag(nil, field, protowire.VarintType)
		m.ProtoReflect().SetUnknown(protowire.AppendVarint(b, uint64(at)))
	}
}

func (e *encoder) series(f *dto.MetricFamily, name string, m *dto.Metric, extra *label, s *remote.TimeSeries) {
	labels := e.labels(name, m, extra)
	var key strings.Builder
	for _, l := range labels {
		key.WriteString(l.name + "\xff" + l.value + "\xff")
	}
	e.seen[key.String()] = labels
	s.Metadata = &remote.Metadata{Type: types[f.GetType()]}
	e.append(labels, s)
	s.Metadata.HelpRef = e.symbols.Symbolize(f.GetHelp())
}

// labels returns those of a series by name. What is empty is no label, and what the
// metric has of its own stays.
func (e *encoder) labels(name string, m *dto.Metric, extra *label) []label {
	labels := make([]label, 0, len(m.GetLabel())+len(e.added)+2)
	labels = append(labels, label{"__name__", name})
	for _, pair := range m.GetLabel() {
		if pair.GetValue() != "" {
			labels = append(labels, label{pair.GetName(), pair.GetValue()})
		}
	}
	if extra != nil {
		labels = append(labels, *extra)
	}
	own := len(labels)
	for _, l := range e.added {
		if !slices.ContainsFunc(labels[:own], func(o label) bool { return o.name == l.name }) {
			labels = append(labels, l)
		}
	}
	slices.SortFunc(labels, func(a, b label) int { return strings.Compare(a.name, b.name) })
	return labels
}

// append adds a series to the last request, or to a new one if that is full.
func (e *encoder) append(labels []label, s *remote.TimeSeries) {
	if len(e.requests) == 0 || len(e.requests[len(e.requests)-1].Timeseries) >= requestSeries {
		e.close()
		e.requests, e.symbols = append(e.requests, &remote.Request{}), remote.NewSymbolTable()
	}
	for _, l := range labels {
		s.LabelsRefs = append(s.LabelsRefs, e.symbols.Symbolize(l.name), e.symbols.Symbolize(l.value))
	}
	request := e.requests[len(e.requests)-1]
	request.Timeseries = append(request.Timeseries, s)
}

// close gives the last request its strings.
func (e *encoder) close() {
	if n := len(e.requests); n > 0 {
		e.requests[n-1].Symbols = e.symbols.Symbols()
	}
}

func (e *encoder) end() []*remote.Request {
	e.close()
	requests := e.requests
	e.requests, e.seen = nil, nil
	return requests
}

var types = map[dto.MetricType]remote.Metadata_MetricType{
	dto.MetricType_COUNTER:   remote.Metadata_METRIC_TYPE_COUNTER,
	dto.MetricType_GAUGE:     remote.Metadata_METRIC_TYPE_GAUGE,
	dto.MetricType_SUMMARY:   remote.Metadata_METRIC_TYPE_SUMMARY,
	dto.MetricType_HISTOGRAM: remote.Metadata_METRIC_TYPE_HISTOGRAM,
}

// number writes a bound or quantile as OpenMetrics does, and Prometheus from 3.0 on whatever it
// scrapes: "1.0".
func number(f float64) string {
	text := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(text, ".eIN") { // nor Inf, nor NaN
		text += ".0"
	}
	return text
}

func milliseconds(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return t.AsTime().UnixMilli()
}
