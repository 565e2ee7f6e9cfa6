// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"fmt"
	"math"

	remote "github.com/prometheus/client_golang/exp/api/remote/genproto/v2"
	"google.golang.org/protobuf/encoding/protowire"
)

// The numbers of the fields of protocol 1.0 (prometheus.WriteRequest, TimeSeries, Label and
// Sample).
const (
	v1Timeseries = 1

	v1Labels  = 1
	v1Samples = 2

	v1Name  = 1
	v1Value = 2

	v1SampleValue     = 1
	v1SampleTimestamp = 2
)

// encodeV1 returns a request in protocol 1.0, which has neither types nor created
// timestamps. Native histograms are left out: who does not take them refuses all of it.
func encodeV1(r *remote.Request) (encoded []byte, err error) {
	for _, s := range r.GetTimeseries() {
		if len(s.GetHistograms()) > 0 {
			continue
		}
		series, err := seriesV1(r.GetSymbols(), s)
		if err != nil {
			return nil, err
		}
		encoded = appendMessage(encoded, v1Timeseries, series)
	}
	return encoded, nil
}

func seriesV1(symbols []string, s *remote.TimeSeries) (b []byte, err error) {
	refs := s.GetLabelsRefs()
	for n := 0; n+1 < len(refs); n += 2 {
		name, value := int(refs[n]), int(refs[n+1])
		if name >= len(symbols) || value >= len(symbols) {
			return nil, fmt.Errorf("label %d: no such string", n/2)
		}
		l := protowire.AppendString(protowire.AppendTag(nil, v1Name, protowire.BytesType), symbols[name])
		l = protowire.AppendString(protowire.AppendTag(l, v1Value, protowire.BytesType), symbols[value])
		b = appendMessage(b, v1Labels, l)
	}
	for _, sample := range s.GetSamples() {
		v := protowire.AppendFixed64(protowire.AppendTag(nil, v1SampleValue, protowire.Fixed64Type), math.Float64bits(sample.GetValue()))
		v = protowire.AppendVarint(protowire.AppendTag(v, v1SampleTimestamp, protowire.VarintType), uint64(sample.GetTimestamp()))
		b = appendMessage(b, v1Samples, v)
	}
	return b, nil
}

func appendMessage(b []byte, field protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), message)
}
