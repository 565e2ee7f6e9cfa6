// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/promtest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

var update = flag.Bool("update", false, "write the golden files anew")

// source gives the same values each time.
type source struct {
	snapshot *flows.Snapshot
	err      error
	agent    Agent
}

func (s *source) Snapshot(context.Context) (*flows.Snapshot, error) { return s.snapshot, s.err }
func (s *source) Agent() Agent                                      { return s.agent }

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func counters(transmit, receive uint64) [flows.Directions]flows.Counters {
	return [flows.Directions]flows.Counters{
		{Bytes: transmit, Packets: transmit / 100}, {Bytes: receive, Packets: receive / 100},
	}
}

// both is when both directions of a series began.
var both = [flows.Directions]time.Time{start, start.Add(time.Second)}

// onlyTransmit is a series that has received nothing.
var onlyTransmit = [flows.Directions]time.Time{start}

var allLabels = flows.Optional{PeerPod: true, PeerIP: true, PeerPort: true, Process: true,
	City: true, Latitude: true, Longitude: true, IP: true, Container: true}

// handMade is a snapshot with each family and each label.
func handMade() *flows.Snapshot {
	shop := flows.Workload{Type: "deployment", Name: "shop"}
	return &flows.Snapshot{
		Pods: []flows.Series[flows.NoLabels]{
			{Namespace: "web", Pod: "shop-0", Counters: counters(3300, 1400), Created: both},
			{Namespace: "web", Pod: "idle-0"},
		},
		Foreign: []flows.Series[flows.NoLabels]{
			{Namespace: "web", Pod: "shop-0", Counters: counters(60, 0), Created: onlyTransmit},
			{Namespace: "web", Pod: "idle-0"},
		},
		Flows: []flows.Series[flows.FlowLabels]{
			{Namespace: "web", Pod: "shop-0", Counters: counters(2000, 1000), Created: both, Labels: flows.FlowLabels{
				Container: "app", Workload: shop, PeerKind: flows.PeerPod, Locality: flows.LocalityCrossZone,
				Protocol: flows.ProtoTCP, PeerNamespace: "data", Peer: "db", PeerWorkloadType: "statefulset",
				Service: "postgres", PeerPod: "db-0", PeerIP: netip.MustParseAddr("10.1.0.5"), PeerPort: 5432, Process: "shopd"}},
			{Namespace: "web", Pod: "shop-0", Counters: counters(500, 0), Created: onlyTransmit, Labels: flows.FlowLabels{
				Container: "app", Workload: shop, PeerKind: flows.PeerExternal, Locality: flows.LocalityExternal,
				Protocol: flows.ProtoUDP, PeerIP: netip.MustParseAddr("2001:db8::1"), PeerPort: 53}},
			{Namespace: "web", Pod: "shop-0", Counters: counters(0, 100), Created: [2]time.Time{{}, start},
				Labels: flows.FlowLabels{PeerKind: flows.PeerUnattributed}},
		},
		Health: handMadeHealth(shop),
		Retired: []flows.Series[flows.PeerKind]{
			{Namespace: "web", Pod: "shop-0", Labels: flows.PeerExternal, Counters: counters(700, 300), Created: both},
			{Namespace: "web", Pod: "shop-0", Labels: flows.PeerNode, Counters: counters(100, 0), Created: onlyTransmit},
		},
		Externals: []flows.Series[flows.ExternalLabels]{
			{Namespace: "web", Pod: "shop-0", Counters: counters(400, 0), Created: onlyTransmit, Labels: flows.ExternalLabels{
				Country: "DE", ASN: "64496", Organization: `Example "Net" \ GmbH`, City: "Köln", Latitude: "50.94",
				Longitude: "6.96", IP: netip.MustParseAddr("2001:db8::1"), Container: "app"}},
			{Namespace: "web", Pod: "shop-0", Counters: counters(100, 0), Created: onlyTransmit,
				Labels: flows.ExternalLabels{Country: "other"}},
		},
		RetiredExternals: []flows.Series[flows.NoLabels]{
			{Namespace: "web", Pod: "shop-0", Counters: counters(700, 300), Created: both},
		},
		FlowSets: 2, ExternalSets: 1, FoldedFlowBytes: 0, FoldedExternalBytes: 100,
		Uplinks: handMadeUplinks(),
	}
}

// handMadeHealth is of a row, of two that are one without their opt-in labels, and of one
// that a limit folded.
func handMadeHealth(shop flows.Workload) []flows.HealthSeries {
	db := flows.FlowLabels{Container: "app", Workload: shop, PeerKind: flows.PeerPod, Protocol: flows.ProtoTCP, PeerNamespace: "data", Peer: "db"}
	first, second := db, db
	first.PeerPod, second.PeerPod = "db-0", "db-1"
	return []flows.HealthSeries{
		{Namespace: "web", Pod: "shop-0", Labels: first, Created: start.Add(time.Second), Health: flows.Health{
			Opened: 3, RetransmittedSegments: 5, RetransmittedBytes: 6000, RTT: [flows.RTTBuckets]uint64{0: 1, 9: 2, 10: 4, 30: 1}, RTTSum: 150_123}},
		{Namespace: "web", Pod: "shop-0", Labels: second, Created: start, Health: flows.Health{
			Opened: 1, Failed: 2, RTT: [flows.RTTBuckets]uint64{10: 1, 46: 1}, RTTSum: 64_000_000}},
		{Namespace: "web", Pod: "shop-0", Labels: flows.FlowLabels{PeerKind: flows.PeerOther}, Created: start, Health: flows.Health{Failed: 7}},
	}
}

// handMadeUplinks has each family of the uplinks and each of their labels.
func handMadeUplinks() flows.UplinkSnapshot {
	series := func(transmit, receive uint64, labels flows.UplinkLabels) flows.Series[flows.UplinkLabels] {
		s := flows.Series[flows.UplinkLabels]{Labels: labels, Counters: counters(transmit, receive), Created: onlyTransmit}
		if receive > 0 {
			s.Created = both
		}
		return s
	}
	type all = []flows.Series[flows.UplinkLabels]
	return flows.UplinkSnapshot{
		Interfaces: all{series(1700, 900, flows.UplinkLabels{Interface: "eth0"}), {Labels: flows.UplinkLabels{Interface: "eth1"}}},
		Retired:    all{series(100, 0, flows.UplinkLabels{Interface: "eth0"})},
		Rows: all{
			series(1000, 900, flows.UplinkLabels{Interface: "eth0", PeerKind: flows.PeerExternal,
				Locality: flows.LocalityExternal, Country: "DE", ASN: "64496", Organization: "Example \xff Net"}),
			series(600, 0, flows.UplinkLabels{Interface: "eth0", PeerKind: flows.PeerNode, Locality: flows.LocalitySameZone, Peer: "node-b"}),
		},
		Sets: 2, FoldedBytes: 70,
	}
}

func handMadeAgent() Agent {
	return Agent{
		LostBytes:    map[string]uint64{"unbound": 12},
		ResidueBytes: 60, UnplacedBytes: 40, UnboundBytes: 99, DrainedEntries: 1234,
		LastDrain: start.Add(1500 * time.Millisecond),
		Differences: []Difference{
			{"web", "shop-0", flows.Transmit, -3}, {"web", "shop-0", flows.Receive, 7},
			{"web", "shop-0", flows.Transmit, 1},
		},
		Interfaces:      map[string]int{"attached": 2, "novel": 1},
		Pods:            map[string]int{PodMetered: 2, PodHostNetwork: 5},
		Uplinks:         map[string]int{"attached": 1},
		Yielded:         map[string]int{"host_pods": 3},
		ParsedPackets:   map[string]uint64{"full": 46},
		IdentityObjects: map[string]int{"pods": 70},
		ServiceLookups:  map[string]uint64{LookupFound: 80},
		Sockets:         map[string]uint64{"recorded": 12, "no_room": 0, "no_sample_room": 0, "no_storage": 0},
		TCPEntries:      map[string]uint64{TCPAttributed: 20, TCPNoPod: 30, TCPUnbound: 0},
		IdentitySynced:  true, IdentityUpdated: start,
	}
}

func options(s Source, optional flows.Optional) Options {
	return Options{
		Source: s, Optional: optional, FlowSeriesLimit: 2000, ExternalSeriesLimit: 1000, UplinkSeriesLimit: 500,
		Known: Known{
			InterfaceStates: []string{"attached", "settling"}, UplinkStates: []string{"attached", "gone"}, Outcomes: []string{"full", "not_ip"},
			LostReasons: []string{"unbound", "no_interface"}, IdentityKinds: []string{"pods", "services"},
		},
		Version: "1.2.3", Revision: "abc", Logger: slog.New(slog.DiscardHandler),
	}
}

func newExporter(t testing.TB, o Options) *Exporter {
	t.Helper()
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// gather returns podmeter's families but for those that depend on the build.
func gather(t testing.TB, e *Exporter) []*dto.MetricFamily {
	t.Helper()
	return ours(t, e.Registry())
}

func ours(t testing.TB, gatherer prometheus.Gatherer) []*dto.MetricFamily {
	t.Helper()
	all, err := gatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(family *dto.MetricFamily) bool {
		return !strings.HasPrefix(family.GetName(), "podmeter_") || family.GetName() == "podmeter_build_info"
	})
}

func encode(t testing.TB, families []*dto.MetricFamily, format expfmt.Format) []byte {
	t.Helper()
	var b bytes.Buffer
	encoder := expfmt.NewEncoder(&b, format)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			t.Fatal(err)
		}
	}
	if err := encoder.(expfmt.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGoldenExposition(t *testing.T) {
	text, openMetrics := expfmt.NewFormat(expfmt.TypeTextPlain), expfmt.NewFormat(expfmt.TypeOpenMetrics)
	for _, c := range []struct {
		file     string
		format   expfmt.Format
		optional flows.Optional
		classic  bool
	}{
		{"default.txt", text, flows.Optional{}, false},
		{"all-labels.txt", text, allLabels, true},
		{"openmetrics.txt", openMetrics, flows.Optional{}, false},
	} {
		t.Run(c.file, func(t *testing.T) {
			o := options(&source{snapshot: handMade(), agent: handMadeAgent()}, c.optional)
			o.ClassicRTT = c.classic
			e := newExporter(t, o)
			e.ObserveDrain(3 * time.Millisecond)
			e.ObserveDrain(700 * time.Millisecond)
			got, path := encode(t, ours(t, summarized{e.Registry()}), c.format), filepath.Join("testdata", c.file)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("exposition (-want +got, go test -update writes it anew):\n%s", diff)
			}
		})
	}
}

func TestLint(t *testing.T) {
	e := newExporter(t, options(&source{snapshot: handMade(), agent: handMadeAgent()}, allLabels))
	problems, err := testutil.GatherAndLint(e.Registry())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestPromtoolAcceptsMetrics(t *testing.T) {
	promtool := promtest.Promtool(t)
	e := newExporter(t, options(&source{snapshot: handMade(), agent: handMadeAgent()}, allLabels))
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = bytes.NewReader(encode(t, gather(t, e), expfmt.NewFormat(expfmt.TypeTextPlain)))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: got %v and %q, want it to be content", err, out)
	}
}

// Created timestamps are in the protobuf exposition, per direction, and nowhere
// else.
func TestCreatedTimestamps(t *testing.T) {
	e := newExporter(t, options(&source{snapshot: handMade(), agent: handMadeAgent()}, flows.Optional{}))
	decoder := expfmt.NewDecoder(bytes.NewReader(encode(t, gather(t, e), expfmt.NewFormat(expfmt.TypeProtoDelim))),
		expfmt.NewFormat(expfmt.TypeProtoDelim))
	got := make(map[string]time.Time)
	for {
		var family dto.MetricFamily
		if err := decoder.Decode(&family); err != nil {
			break
		}
		if created := family.Metric[len(family.Metric)-1].GetCounter().GetCreatedTimestamp(); created != nil {
			got[family.GetName()] = created.AsTime()
		}
	}
	for name, want := range map[string]time.Time{
		"podmeter_pod_transmit_bytes_total":              start,
		"podmeter_pod_receive_packets_total":             start.Add(time.Second),
		"podmeter_flow_transmit_packets_total":           start,
		"podmeter_flow_retired_receive_bytes_total":      start.Add(time.Second),
		"podmeter_external_transmit_bytes_total":         start,
		"podmeter_external_retired_receive_bytes_total":  start.Add(time.Second),
		"podmeter_external_retired_transmit_bytes_total": start,
		"podmeter_uplink_receive_bytes_total":            start.Add(time.Second),
		"podmeter_uplink_retired_transmit_packets_total": start,
	} {
		if !got[name].Equal(want) {
			t.Errorf("%s: got created %v, want %v", name, got[name], want)
		}
	}
	text := encode(t, gather(t, e), expfmt.NewFormat(expfmt.TypeOpenMetrics))
	if bytes.Contains(text, []byte("_created")) {
		t.Error("text: got series _created, want none")
	}
}

// Without a snapshot there is no traffic, but all of the agent's own.
func TestSnapshotError(t *testing.T) {
	s := &source{snapshot: handMade(), agent: handMadeAgent()}
	var logs bytes.Buffer
	o := options(s, flows.Optional{})
	o.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	e := newExporter(t, o)
	before := gather(t, e)
	s.snapshot, s.err = nil, errors.New("drain: out of order")
	gather(t, e)
	after := gather(t, e)

	var want, got []string
	for _, family := range before {
		if !isTraffic(family.GetName()) {
			want = append(want, family.GetName())
		}
	}
	for _, family := range after {
		got = append(got, family.GetName())
		if family.GetName() == "podmeter_snapshot_errors_total" && family.Metric[0].Counter.GetValue() != 2 {
			t.Errorf("errors: got %v, want 2", family.Metric[0].Counter.GetValue())
		}
		if family.GetName() == "podmeter_series" && family.Metric[1].Gauge.GetValue() != 2 {
			t.Errorf("series: got %v, want the last known 2", family.Metric[1].Gauge.GetValue())
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("families (-want +got):\n%s", diff)
	}
	if n := strings.Count(logs.String(), "out of order"); n != 1 {
		t.Errorf("logged: got %d times, want once", n)
	}
}

func isTraffic(name string) bool {
	for _, prefix := range []string{"pod_", "flow_", "tcp_", "external_", "uplink_"} {
		if strings.HasPrefix(name, "podmeter_"+prefix) {
			return true
		}
	}
	return false
}

// A source that hangs is given up, and the scrape goes on without it.
func TestSnapshotIsBounded(t *testing.T) {
	o := options(hanging{}, flows.Optional{})
	o.SnapshotTimeout = time.Millisecond
	if got := len(gather(t, newExporter(t, o))); got == 0 {
		t.Error("families: got none, want the agent's own")
	}
}

type hanging struct{}

func (hanging) Snapshot(ctx context.Context) (*flows.Snapshot, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (hanging) Agent() Agent { return Agent{} }
