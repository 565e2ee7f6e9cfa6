// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Rows that are equal once labels are dropped or made valid are one series.
func TestEqualRowsAreAdded(t *testing.T) {
	row := func(pod string, l flows.FlowLabels, created time.Time, bytes uint64) flows.Series[flows.FlowLabels] {
		return flows.Series[flows.FlowLabels]{Namespace: "a", Pod: pod, Labels: l,
			Counters: counters(bytes, 0), Created: [2]time.Time{created}}
	}
	all := []flows.Series[flows.FlowLabels]{
		row("p", flows.FlowLabels{PeerPort: 1}, start.Add(time.Minute), 100),
		row("p", flows.FlowLabels{PeerPort: 2, PeerIP: netip.MustParseAddr("10.0.0.1")}, start, 200),
		row("p", flows.FlowLabels{Peer: "bad\xff"}, start, 400),
		row("p", flows.FlowLabels{Peer: "bad\xfe"}, start, 800),
		row("veth\xff", flows.FlowLabels{}, start, 1600),
	}
	before := slices.Clone(all)
	got := combine(all, cleanFlow(flows.Optional{}))
	want := []flows.Series[flows.FlowLabels]{
		row("p", flows.FlowLabels{}, start, 300),
		row("p", flows.FlowLabels{Peer: "bad\uFFFD"}, start, 1200),
		row("veth\uFFFD", flows.FlowLabels{}, start, 1600),
	}
	compare := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, all, compare); diff != "" {
		t.Errorf("the snapshot has changed (-before +after):\n%s", diff)
	}
}

// What is no UTF-8, in any label of any family, costs a letter and no scrape.
func TestInvalidLabelsAreReplaced(t *testing.T) {
	const bad = "a\xffb"
	s := &flows.Snapshot{
		Pods: []flows.Series[flows.NoLabels]{{Namespace: bad, Pod: bad, Created: both}},
		Flows: []flows.Series[flows.FlowLabels]{{Namespace: bad, Pod: bad, Created: both, Labels: flows.FlowLabels{
			Container: bad, Workload: flows.Workload{Type: bad, Name: bad}, PeerNamespace: bad, Peer: bad,
			PeerWorkloadType: bad, Service: bad, PeerPod: bad, Process: bad}}},
		Externals: []flows.Series[flows.ExternalLabels]{{Namespace: bad, Pod: bad, Created: both, Labels: flows.ExternalLabels{
			Country: bad, ASN: bad, Organization: bad, City: bad, Latitude: bad, Longitude: bad, Container: bad}}},
	}
	agent := Agent{LostBytes: map[string]uint64{bad: 1}, Differences: []Difference{{Namespace: bad, Pod: bad}}}
	o := options(&source{snapshot: s, agent: agent}, allLabels)
	o.Version = bad
	e := newExporter(t, o)
	got := make(map[string]bool)
	for _, family := range gather(t, e) {
		for _, m := range family.Metric {
			for _, l := range m.Label {
				if strings.Contains(l.GetValue(), "a\uFFFDb") {
					got[l.GetName()] = true
				}
			}
		}
	}
	for _, name := range []string{"namespace", "pod", "container", "workload", "workload_type", "peer_namespace", "peer",
		"peer_workload_type", "service", "peer_pod", "country", "asn", "organization", "city", "latitude", "longitude", "reason"} {
		if !got[name] {
			t.Errorf("%s: got no replaced value, want one", name)
		}
	}
}

// Each family of a snapshot has the labels that were asked for, on each series.
func TestLabelsAreAlwaysWritten(t *testing.T) {
	flow := []string{"container", "locality", "namespace", "peer", "peer_kind", "peer_namespace",
		"peer_workload_type", "pod", "protocol", "service", "workload", "workload_type"}
	external := []string{"asn", "country", "namespace", "organization", "pod"}
	for _, c := range []struct {
		name           string
		optional       flows.Optional
		flow, external []string // beyond the usual
	}{
		{"default", flows.Optional{}, nil, nil},
		{"peer_pod", flows.Optional{PeerPod: true}, []string{"peer_pod"}, nil},
		{"peer_ip", flows.Optional{PeerIP: true}, []string{"peer_ip"}, nil},
		{"peer_port", flows.Optional{PeerPort: true}, []string{"peer_port"}, nil},
		{"city", flows.Optional{City: true}, nil, []string{"city"}},
		{"latitude", flows.Optional{Latitude: true}, nil, []string{"latitude"}},
		{"longitude", flows.Optional{Longitude: true}, nil, []string{"longitude"}},
		{"ip", flows.Optional{IP: true}, nil, []string{"ip"}},
		{"container", flows.Optional{Container: true}, nil, []string{"container"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newExporter(t, options(&source{snapshot: handMade()}, c.optional))
			for _, family := range gather(t, e) {
				switch name := family.GetName(); {
				case strings.HasPrefix(name, "podmeter_flow_retired_"):
					checkLabels(t, family, []string{"namespace", "peer_kind", "pod"})
				case strings.HasPrefix(name, "podmeter_external_retired_"), strings.HasPrefix(name, "podmeter_pod_"):
					checkLabels(t, family, []string{"namespace", "pod"})
				case strings.HasPrefix(name, "podmeter_uplink_interface_"), strings.HasPrefix(name, "podmeter_uplink_retired_"):
					checkLabels(t, family, []string{"interface"})
				case strings.HasPrefix(name, "podmeter_uplink_"):
					checkLabels(t, family, []string{"asn", "country", "interface", "locality", "organization", "peer", "peer_kind"})
				case strings.HasPrefix(name, "podmeter_flow_"):
					checkLabels(t, family, slices.Sorted(slices.Values(slices.Concat(flow, c.flow))))
				case strings.HasPrefix(name, "podmeter_external_"):
					checkLabels(t, family, slices.Sorted(slices.Values(slices.Concat(external, c.external))))
				}
			}
		})
	}
}

// The names that flows knows labels by are those that are written.
func TestLabelNamesAreThoseOfFlows(t *testing.T) {
	for _, c := range flowColumns(allLabels) {
		got, err := flows.ParseOptional([]string{c.name}, nil)
		if n := len(flowColumns(got)); err == nil && n != len(flowColumns(flows.Optional{}))+1 {
			t.Errorf("flow label %s: got %d columns, want one more than the usual", c.name, n)
		} else if err != nil && !strings.Contains(err.Error(), "always written") {
			t.Errorf("flow label %s: got %v, want it to be known", c.name, err)
		}
	}
	for _, c := range externalColumns(allLabels) {
		got, err := flows.ParseOptional(nil, []string{c.name})
		if n := len(externalColumns(got)); err == nil && n != len(externalColumns(flows.Optional{}))+1 {
			t.Errorf("external label %s: got %d columns, want one more than the usual", c.name, n)
		} else if err != nil && !strings.Contains(err.Error(), "always written") {
			t.Errorf("external label %s: got %v, want it to be known", c.name, err)
		}
	}
}

func checkLabels(t *testing.T, family *dto.MetricFamily, want []string) {
	t.Helper()
	for _, m := range family.Metric {
		var got []string
		for _, l := range m.Label {
			got = append(got, l.GetName())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: labels (-want +got):\n%s", family.GetName(), diff)
		}
	}
}

// Each metric of ours is in the reference.
func TestMetricsAreDocumented(t *testing.T) {
	reference, err := os.ReadFile("../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan *prometheus.Desc, 100)
	newCollector(options(&source{}, flows.Optional{})).Describe(ch)
	newDrainHistogram().Describe(ch)
	newBuildInfo(Options{}).Describe(ch)
	close(ch)
	for desc := range ch {
		name, _, _ := strings.Cut(strings.TrimPrefix(desc.String(), `Desc{fqName: "`), `"`)
		if !strings.Contains(string(reference), "`"+name+"`") {
			t.Errorf("docs/METRICS.md: got no %s, want it", name)
		}
	}
}
