// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"bytes"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// What is written without reflection is what the library writes of the same, byte for byte.
func TestRowStatesAreAsTheLibraryWritesThem(t *testing.T) {
	mode, err := cbor.EncOptions{Time: cbor.TimeUnixMicro}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	times := []time.Time{{}, time.Unix(0, 0), time.Unix(1<<33, 123_456_789), time.Unix(-5, 7), time.Date(2030, 1, 2, 3, 4, 5, 678_999_500, time.Local)}
	var numbers []uint64
	for _, bound := range []uint64{1, 24, 1 << 8, 1 << 16, 1 << 32, 1 << 63} {
		numbers = append(numbers, bound-1, bound, bound+1)
	}
	numbers = append(numbers, math.MaxUint64)
	flowRows, externals, health := RowStates[FlowLabels]{}, RowStates[ExternalLabels]{}, HealthStates{}
	for i, n := range numbers {
		at := func(j int) time.Time { return times[(i+j)%len(times)] }
		pair := PairState{
			Counters: [Directions]Counters{{Bytes: n, Packets: n / 2}, {Bytes: n / 3, Packets: uint64(i)}},
			Created:  [Directions]time.Time{at(0), at(1)},
		}
		labels := FlowLabels{Peer: "\xff" + strings.Repeat("p", i*20), PeerPort: uint16(n), Protocol: ProtoTCP}
		if i%2 == 0 {
			labels.PeerIP, labels.Process = netip.MustParseAddr("2001:db8::1"), "nginx"
		}
		flowRows = append(flowRows, RowState[FlowLabels]{Labels: labels, Pair: pair, Last: at(2), Counted: i%2 == 0})
		if i%3 == 0 { // with a row of a table, whose labels are encoded before
			flowRows[i].row = &row[FlowLabels]{labels: labels}
		}
		externals = append(externals, RowState[ExternalLabels]{Labels: ExternalLabels{Country: "CH", ASN: "64496"}, Pair: pair, Last: at(2)})
		health = append(health, HealthState{Row: i - 2, Opened: n, Failed: n % 2, Segments: n / 3, Bytes: n % 5,
			RTT: numbers[:i], RTTSum: n * uint64(i%2), Created: at(3)})
	}
	type plainFlows []RowState[FlowLabels]
	type plainExternals []RowState[ExternalLabels]
	type plainHealth []HealthState
	for name, test := range map[string]struct{ got, want any }{
		"flows":           {flowRows, plainFlows(flowRows)},
		"flows again":     {flowRows, plainFlows(flowRows)},
		"externals":       {externals, plainExternals(externals)},
		"health":          {health, plainHealth(health)},
		"none":            {RowStates[FlowLabels]{}, plainFlows{}},
		"nil":             {RowStates[FlowLabels](nil), plainFlows(nil)},
		"health, none":    {HealthStates{}, plainHealth{}},
		"health, nil":     {HealthStates(nil), plainHealth(nil)},
		"within an array": {[]RowStates[FlowLabels]{flowRows, flowRows}, []plainFlows{plainFlows(flowRows), plainFlows(flowRows)}},
	} {
		got, err := mode.Marshal(test.got)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, err := mode.Marshal(test.want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got % x, want % x", name, got, want)
		}
	}
}
