// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/flows"
)

// balancedMetrics are of two pods: what they say is in balance with
// balancedBooks.
func balancedMetrics() map[string]float64 {
	metrics := map[string]float64{
		conservationError: 0,
		`podmeter_flow_retired_transmit_bytes_total{namespace="shop",pod="web",peer_kind="external"}`: 5,
		`podmeter_external_retired_transmit_bytes_total{namespace="shop",pod="web"}`:                  5,
	}
	for i, pod := range []string{`namespace="shop",pod="web"`, `namespace="batch",pod="report"`} {
		for direction, d := range []string{"transmit", "receive"} {
			bytes := float64(1000 * (10*i + direction + 1))
			pods, flow := "podmeter_pod_"+d, "podmeter_flow_"+d
			metrics[fmt.Sprintf("%s_bytes_total{%s}", pods, pod)] = bytes
			metrics[fmt.Sprintf("%s_packets_total{%s}", pods, pod)] = bytes / 100
			metrics[fmt.Sprintf(`%s_bytes_total{%s,peer_kind="pod",peer_ip="fd00::1"}`, flow, pod)] = bytes - 300
			metrics[fmt.Sprintf(`%s_bytes_total{%s,peer_kind="external",peer_ip="198.51.100.10"}`, flow, pod)] = 300
			metrics[fmt.Sprintf(`%s_packets_total{%s,peer_kind="pod",peer_ip="fd00::1"}`, flow, pod)] = bytes/100 - 3
			metrics[fmt.Sprintf(`%s_packets_total{%s,peer_kind="external",peer_ip="198.51.100.10"}`, flow, pod)] = 3
			metrics[fmt.Sprintf(`podmeter_external_%s_bytes_total{%s,country="CH"}`, d, pod)] = 300
		}
	}
	metrics[`podmeter_flow_transmit_bytes_total{namespace="shop",pod="web",peer_kind="external",peer_ip="198.51.100.10"}`] -= 5
	metrics[`podmeter_external_transmit_bytes_total{namespace="shop",pod="web",country="CH"}`] -= 5
	return metrics
}

// expose writes metrics as a text exposition.
func expose(metrics map[string]float64) []byte {
	var b strings.Builder
	family := ""
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		if f, _, _ := strings.Cut(name, "{"); f != family {
			family = f
			fmt.Fprintf(&b, "# TYPE %s counter\n", f)
		}
		fmt.Fprintf(&b, "%s %v\n", name, metrics[name])
	}
	return []byte(b.String())
}

// balancedBooks are those of web, which was there before the agent with 7 bytes
// each way, and of report, which came later and has gone.
func balancedBooks(t *testing.T, metrics map[string]float64) *books {
	t.Helper()
	before := [flows.Directions]flows.Counters{{Bytes: 7, Packets: 1}, {Bytes: 7, Packets: 1}}
	web := Interface{Name: "veth1", Namespace: "shop", Pod: "web", State: stateAttached, Before: before}
	report := Interface{Name: "veth2", Namespace: "batch", Pod: "report", State: stateAttached, Before: before, Seeded: true}
	return &books{
		exposition: must(parseExposition(expose(metrics)))(t),
		metered:    map[string]Interface{"veth1": web},
		entries: []entry{
			{pod: podName{"shop", "web"}, device: "veth1", metered: web,
				kernel: ledger{{Bytes: 1007, Packets: 11}, {Bytes: 2007, Packets: 21}}},
			{pod: podName{"batch", "report"}, device: "veth2", metered: report, gone: true,
				kernel: ledger{{Bytes: 11000, Packets: 110}, {Bytes: 12000, Packets: 120}}},
		},
	}
}

// reconcileCase is balanced books with one fault.
type reconcileCase struct {
	metric string // one to be changed
	by     float64
	spoil  func(*books)
	want   []string // faults
}

// metricCases are faults of the agent's numbers.
func metricCases() map[string]reconcileCase {
	return map[string]reconcileCase{
		"balanced": {},
		"a byte more in a pod's series": {
			metric: `podmeter_pod_transmit_bytes_total{namespace="shop",pod="web"}`, by: 1,
			want: []string{
				"veth1 of shop/web, transmit: podmeter minus kernel is 1 / 0",
				"flow + flow_retired = pod, transmit bytes: shop/web has 1000 on the left and 1001 on the right",
			}},
		"a packet less in a flow row": {
			metric: `podmeter_flow_receive_packets_total{namespace="batch",pod="report",peer_kind="pod",peer_ip="fd00::1"}`, by: -1,
			want: []string{"flow + flow_retired = pod, receive packets: batch/report has 119 on the left and 120 on the right"}},
		"a byte more in a flow row": {
			metric: `podmeter_flow_transmit_bytes_total{namespace="batch",pod="report",peer_kind="pod",peer_ip="fd00::1"}`, by: 1,
			want: []string{"flow + flow_retired = pod, transmit bytes: batch/report has 11001 on the left and 11000 on the right"}},
		"a byte less in a place": {
			metric: `podmeter_external_receive_bytes_total{namespace="shop",pod="web",country="CH"}`, by: -1,
			want: []string{`external + external_retired = flow + flow_retired of peer_kind="external", receive bytes: shop/web has 299 on the left and 300 on the right`}},
		"a retired row that is lost": {
			metric: `podmeter_external_retired_transmit_bytes_total{namespace="shop",pod="web"}`, by: -5,
			want: []string{`external + external_retired = flow + flow_retired of peer_kind="external", transmit bytes: shop/web has 295 on the left and 300 on the right`}},
		"a conservation error": {
			metric: conservationError, by: 2, want: []string{conservationError + ": got 2, want 0"}},
	}
}

// bookCases are faults of everything else.
func bookCases() map[string]reconcileCase {
	return map[string]reconcileCase{
		"a byte more in the kernel": {
			spoil: func(b *books) { b.entries[1].kernel[flows.Receive].Bytes++ },
			want:  []string{"veth2 of batch/report, receive: podmeter minus kernel is -1 / 0"}},
		"what passed before is said to be counted": {
			spoil: func(b *books) { b.entries[0].metered.Seeded = true },
			want: []string{
				"veth1 of shop/web, transmit: podmeter minus kernel is -7 / -1",
				"veth1 of shop/web, receive: podmeter minus kernel is -7 / -1",
			}},
		"what passed before is said not to be counted": {
			spoil: func(b *books) { b.entries[1].metered.Seeded = false },
			want: []string{
				"veth2 of batch/report, transmit: podmeter minus kernel is 7 / 1",
				"veth2 of batch/report, receive: podmeter minus kernel is 7 / 1",
			}},
		"an interface that is not metered": {
			spoil: func(b *books) { b.entries[1].metered = Interface{} },
			want: []string{
				"veth2 of batch/report: the agent does not meter it",
			}},
		"an interface of another pod": {
			spoil: func(b *books) { b.entries[0].metered.Pod = "api" },
			want:  []string{`veth1 of shop/web: the agent takes it for an interface of "shop/api"`}},
		"a stranger's interface": {
			spoil: func(b *books) { b.metered[uplink] = Interface{Name: uplink} },
			want:  []string{uplink + ": the agent meters it, and it is no pod's"}},
		"a stranger's series": {
			spoil: func(b *books) { b.entries = b.entries[:1] },
			want:  []string{"batch/report: it has series, and is none of the demo's pods"}},
		"no IPv6": {
			spoil: func(b *books) {
				for _, s := range b.exposition["podmeter_flow_transmit_bytes_total"] {
					s.labels["peer_ip"] = ""
				}
				for _, s := range b.exposition["podmeter_flow_receive_bytes_total"] {
					s.labels["peer_ip"] = "198.51.100.10"
				}
			},
			want: []string{"IPv6: no byte was counted"}},
		"no conservation error exported": {
			spoil: func(b *books) { delete(b.exposition, conservationError) },
			want:  []string{conservationError + ": the agent does not export it"}},
		"no external series": {
			spoil: func(b *books) {
				for _, name := range []string{"podmeter_external_receive_bytes_total", "podmeter_flow_receive_bytes_total", "podmeter_pod_receive_bytes_total"} {
					delete(b.exposition, name)
				}
				b.entries = nil
				b.metered = nil
			},
			want: []string{
				"batch/report: it has series, and is none of the demo's pods",
				"flow + flow_retired = pod, receive bytes: no pod has such series",
				`external + external_retired = flow + flow_retired of peer_kind="external", receive bytes: no pod has such series`,
				"shop/web: it has series, and is none of the demo's pods",
			}},
	}
}

func TestReconcile(t *testing.T) {
	cases := metricCases()
	maps.Copy(cases, bookCases())
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			metrics := balancedMetrics()
			if _, ok := metrics[c.metric]; !ok && c.metric != "" {
				t.Fatalf("no metric %s", c.metric)
			}
			if c.metric != "" {
				metrics[c.metric] += c.by
			}
			b := balancedBooks(t, metrics)
			if c.spoil != nil {
				c.spoil(b)
			}
			r := b.reconcile()
			checkReport(t, r, c.want)
		})
	}
}

func checkReport(t *testing.T, r *report, want []string) {
	t.Helper()
	got := slices.Sorted(slices.Values(r.faults))
	if !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("got faults\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	if err := r.err(); (err == nil) != (len(want) == 0) {
		t.Errorf("got error %v with %d faults", err, len(want))
	}
	var text strings.Builder
	r.write(&text)
	if equal := strings.Contains(text.String(), "All equal"); equal != (len(want) == 0) {
		t.Errorf("got a report that says all equal: %v, with %d faults:\n%s", equal, len(want), &text)
	}
	for _, fault := range want {
		if !strings.Contains(text.String(), "NOT EQUAL  "+fault) {
			t.Errorf("got a report without %q:\n%s", fault, &text)
		}
	}
}

func TestReportText(t *testing.T) {
	var text strings.Builder
	balancedBooks(t, balancedMetrics()).reconcile().write(&text)
	for _, want := range []string{
		"shop/web      veth1         transmit     1,000 / 10          7 / 1  not counted    1,007 / 11       0 / 0\n",
		"batch/report  veth2 (gone)  receive    12,000 / 120          7 / 1  counted      12,000 / 120       0 / 0\n",
		"shop/web       595   2,400          5\n",
		"equal  podmeter_conservation_error_bytes_total = 0\n",
		"All equal: 26,000 bytes in 260 packets, exact on 2 interfaces in both directions.\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("got no %q in\n%s", want, &text)
		}
	}
}
