// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
	"github.com/prometheus/common/expfmt"
)

// The most bytes of text that a row of a family takes in a scrape, and without what is to be
// asked for. docs/RELIABILITY.md says what follows from them and the series limits.
const (
	flowRowBytes     = 44_000
	externalRowBytes = 3_000
	uplinkRowBytes   = 4_000
)

// extreme is a snapshot with one row of each family. Of its labels those that an API server
// checks are label, name or place, and those that anybody may choose are free.
func extreme(label, name, place, free func(limit int) string) *flows.Snapshot {
	address := netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666")
	workload := flows.Workload{Type: free(plain.LabelLimit), Name: free(plain.NameLimit)}
	labels := flows.FlowLabels{
		Container: label(plain.LabelLimit), Workload: workload, PeerKind: flows.PeerPod, Locality: flows.LocalityCrossZone, Protocol: flows.ProtoTCP,
		PeerNamespace: label(plain.LabelLimit), Peer: workload.Name, PeerWorkloadType: workload.Type, Service: label(plain.LabelLimit),
		PeerPod: name(plain.NameLimit), PeerIP: address, PeerPort: 65535, Process: free(15),
	}
	health := flows.Health{Opened: 1 << 60, Failed: 1 << 60, RetransmittedSegments: 1 << 60, RetransmittedBytes: 1 << 60, RTTSum: 1 << 60}
	for i := range health.RTT {
		health.RTT[i] = 1 << 50
	}
	most, namespace, pod := counters(1<<60, 1<<60), label(plain.LabelLimit), name(plain.NameLimit)
	return &flows.Snapshot{
		Flows:  []flows.Series[flows.FlowLabels]{{Namespace: namespace, Pod: pod, Labels: labels, Counters: most, Created: both}},
		Health: []flows.HealthSeries{{Namespace: namespace, Pod: pod, Labels: labels, Created: start, Health: health}},
		Externals: []flows.Series[flows.ExternalLabels]{{Namespace: namespace, Pod: pod, Counters: most, Created: both, Labels: flows.ExternalLabels{
			Country: "DE", ASN: "4294967295", Organization: place(plain.PlaceLimit), City: place(plain.PlaceLimit),
			Latitude: "-89.123456", Longitude: "-179.123456", IP: address, Container: label(plain.LabelLimit)}}},
		Uplinks: flows.UplinkSnapshot{Rows: []flows.Series[flows.UplinkLabels]{{Counters: most, Created: both, Labels: flows.UplinkLabels{
			Interface: free(15), PeerKind: flows.PeerNode, Peer: name(plain.NameLimit),
			Country: "DE", ASN: "4294967295", Organization: place(plain.PlaceLimit)}}}},
	}
}

// texts gathers a snapshot, and returns the text of each family.
func texts(t *testing.T, snapshot *flows.Snapshot) map[string][]byte {
	t.Helper()
	e, err := New(Options{Source: &source{snapshot: snapshot}, Optional: allLabels, ClassicRTT: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	families, err := e.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for _, family := range families {
		var text bytes.Buffer
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			t.Fatal(err)
		}
		all[family.GetName()] = text.Bytes()
		for _, m := range family.Metric {
			for _, l := range m.Label {
				if !plain.Is(l.GetValue(), plain.ValueLimit) {
					t.Errorf("%s{%s}: got %d bytes, %.40q", family.GetName(), l.GetName(), len(l.GetValue()), l.GetValue())
				}
			}
		}
	}
	return all
}

// Whatever comes to the exporter, a label is plain.
func TestLabelsArePlain(t *testing.T) {
	vile := func(int) string { return "<img>\x1b[2J\n\u202e\xff" + strings.Repeat("a", 1_000_000) }
	if got := texts(t, extreme(vile, vile, vile, vile)); len(got["podmeter_flow_transmit_bytes_total"]) == 0 {
		t.Errorf("got no flows in %d families", len(got))
	}
}

// A scrape has at most so many bytes for each row that a limit allows: names as long as may
// be, each character of which is escaped where it may be one that has to be.
func TestScrapeIsBounded(t *testing.T) {
	letters := func(limit int) string { return strings.Repeat("a", limit) }
	quotes := func(limit int) string { return strings.Repeat(`"`, limit) }
	sizes := make(map[string]int)
	for name, text := range texts(t, extreme(letters, letters, letters, quotes)) {
		kind, _, _ := strings.Cut(strings.TrimPrefix(name, "podmeter_"), "_")
		sizes[kind] += len(text)
	}
	for of, bound := range map[string]struct{ got, most int }{
		"flow": {sizes["flow"] + sizes["tcp"], flowRowBytes}, "external": {sizes["external"], externalRowBytes}, "uplink": {sizes["uplink"], uplinkRowBytes},
	} {
		if bound.got > bound.most || bound.got < bound.most*3/4 {
			t.Errorf("%s: got %d bytes a row, want at most %d, and not much less", of, bound.got, bound.most)
		}
	}
}
