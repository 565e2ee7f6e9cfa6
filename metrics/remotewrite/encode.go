// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"maps"
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
// time, to end those that are no more. What it builds a request of is used again for the
// next, as garbage of thousands of series each time would double an agent's memory.
type encoder struct {
	// added are the labels that a scrape configuration would give.
	added []label
	// natives is whether native histograms are sent beside the classic ones.
	natives bool
	// take gets each request, which is its own until it returns.
	take func(*remote.Request)

	now    int64 // milliseconds
	round  uint64
	series map[string]*uint64 // by key: the round that had it last

	labels  []label
	key     []byte
	slots   [requestSeries]slot
	request remote.Request
	symbols remote.SymbolsTable
}

// slot is room for a series with one sample.
type slot struct {
	series    remote.TimeSeries
	sample    remote.Sample
	metadata  remote.Metadata
	samples   [1]*remote.Sample
	histogram [1]*remote.Histogram
}

func newEncoder(added map[string]string, natives bool, take func(*remote.Request)) *encoder {
	e := &encoder{natives: natives, take: take, series: make(map[string]*uint64), symbols: remote.NewSymbolTable()}
	for _, name := range slices.Sorted(maps.Keys(added)) {
		e.added = append(e.added, label{name, added[name]})
	}
	return e
}

// encode makes requests with a sample for each series at this time, and a staleness
// marker for those that the last call had and this one has not.
func (e *encoder) encode(families []*dto.MetricFamily, now time.Time) {
	e.now, e.round = now.UnixMilli(), e.round+1
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			e.metric(family, metric)
		}
	}
	for key, round := range e.series {
		if *round != e.round {
			e.labels = labelsOf(e.labels[:0], key)
			e.append().sampled(staleNaN, e.now, 0)
			delete(e.series, key)
		}
	}
	e.flush()
}

// finish makes requests that end all series.
func (e *encoder) finish(now time.Time) { e.encode(nil, now) }

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

// histogram adds the classic series, and the native histogram if there is one. One that has
// no classic buckets has a sum and a count alone: as the bucket of all it would have its
// count twice, and without them protocol 1.0, which has no native ones, would have nothing.
func (e *encoder) histogram(family *dto.MetricFamily, metric *dto.Metric) {
	h, name := metric.GetHistogram(), family.GetName()
	created, natives := h.GetCreatedTimestamp(), len(h.GetPositiveSpan())+len(h.GetNegativeSpan()) > 0
	if len(h.GetBucket()) > 0 || !natives {
		e.buckets(family, metric)
	}
	e.sample(family, name+"_sum", metric, nil, h.GetSampleSum(), created)
	e.sample(family, name+"_count", metric, nil, float64(h.GetSampleCount()), created)
	if !e.natives || !natives {
		return
	}
	e.find(name, metric, nil)
	to := e.seen(family)
	n := native(h, e.now)
	start(n, histogramStart, milliseconds(created))
	to.histogram[0] = n
	to.series.Histograms, to.series.CreatedTimestamp = to.histogram[:], milliseconds(created)
}

// buckets adds the classic ones, and that of all.
func (e *encoder) buckets(family *dto.MetricFamily, metric *dto.Metric) {
	h, name := metric.GetHistogram(), family.GetName()+"_bucket"
	created, infinite := h.GetCreatedTimestamp(), false
	for _, b := range h.GetBucket() {
		infinite = infinite || math.IsInf(b.GetUpperBound(), 1)
		e.sample(family, name, metric, &label{"le", number(b.GetUpperBound())}, float64(b.GetCumulativeCount()), created)
	}
	if !infinite {
		e.sample(family, name, metric, &label{"le", "+Inf"}, float64(h.GetSampleCount()), created)
	}
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
	e.find(name, m, extra)
	e.seen(f).sampled(value, e.now, milliseconds(created))
}

// sampled puts a sample of a counter that began at a time, or 0, into a slot.
func (s *slot) sampled(value float64, now, began int64) {
	s.sample.Value, s.sample.Timestamp = value, now
	s.sample.ProtoReflect().SetUnknown(nil)
	start(&s.sample, sampleStart, began)
	s.samples[0] = &s.sample
	s.series.Samples, s.series.CreatedTimestamp = s.samples[:], began
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

// seen returns room for the series of the labels that were found, and remembers it.
func (e *encoder) seen(f *dto.MetricFamily) *slot {
	e.key = e.key[:0]
	for _, l := range e.labels {
		e.key = append(append(append(append(e.key, l.name...), keyEnd), l.value...), keyEnd)
	}
	round := e.series[string(e.key)] // which makes no string
	if round == nil {
		round = new(uint64)
		e.series[string(e.key)] = round
	}
	*round = e.round
	s := e.append()
	s.metadata.Type, s.metadata.HelpRef = types[f.GetType()], e.symbols.Symbolize(f.GetHelp())
	s.series.Metadata = &s.metadata
	return s
}

// keyEnd ends each name and value in a key: no byte of UTF-8.
const keyEnd = 0xff

// labelsOf appends the labels of a key.
func labelsOf(labels []label, key string) []label {
	for key != "" {
		var l label
		l.name, key, _ = strings.Cut(key, string([]byte{keyEnd}))
		l.value, key, _ = strings.Cut(key, string([]byte{keyEnd}))
		labels = append(labels, l)
	}
	return labels
}

// find finds the labels of a series, by name. What is empty is no label, and what the
// metric has of its own stays.
func (e *encoder) find(name string, m *dto.Metric, extra *label) {
	labels := append(e.labels[:0], label{"__name__", name})
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
	e.labels = labels
}

// append adds a series of the labels that were found to the request, or to a new one if
// that is full.
func (e *encoder) append() *slot {
	if len(e.request.Timeseries) == requestSeries {
		e.flush()
	}
	s := &e.slots[len(e.request.Timeseries)]
	refs := s.series.LabelsRefs[:0]
	for _, l := range e.labels {
		refs = append(refs, e.symbols.Symbolize(l.name), e.symbols.Symbolize(l.value))
	}
	s.series.LabelsRefs, s.series.Samples, s.series.Histograms, s.series.Metadata = refs, nil, nil, nil
	s.series.CreatedTimestamp = 0
	e.request.Timeseries = append(e.request.Timeseries, &s.series)
	return s
}

// flush gives away the request, if there is one.
func (e *encoder) flush() {
	if len(e.request.Timeseries) > 0 {
		e.request.Symbols = e.symbols.Symbols()
		e.take(&e.request)
		e.request.Timeseries = e.request.Timeseries[:0]
		e.symbols.Reset()
	}
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
