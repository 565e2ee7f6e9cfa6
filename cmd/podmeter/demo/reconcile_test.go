// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
)

// balancedMetrics are of two pods: what they say is in balance with
// balancedSides.
func balancedMetrics() map[string]float64 {
	metrics := map[string]float64{
		verify.ConservationError:                           0,
		`podmeter_lost_bytes_total{reason="no_interface"}`: 0,
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

// balancedSides are those of web, which was there before the agent with 7 bytes
// each way, and of report, which came later and has gone.
func balancedSides(t *testing.T, metrics map[string]float64) *sides {
	t.Helper()
	before := verify.Pair{{Bytes: 7, Packets: 1}, {Bytes: 7, Packets: 1}}
	web := verify.Interface{Name: "veth1", Index: 1, Pod: verify.Pod{Namespace: "shop", Name: "web"}, State: stateAttached, Before: before,
		Exported: verify.Pair{{Bytes: 1000, Packets: 10}, {Bytes: 2000, Packets: 20}}}
	report := verify.Interface{Name: "veth2", Pod: verify.Pod{Namespace: "batch", Name: "report"}, State: stateAttached, Before: before, Seeded: true}
	return &sides{
		metrics: must(verify.Parse(expose(metrics)))(t),
		agent: &verify.Agent{
			Interfaces: []verify.Interface{web},
			Earlier:    map[verify.Pod]verify.Pair{report.Pod: {{Bytes: 11000, Packets: 110}, {Bytes: 12000, Packets: 120}}},
		},
		pods:   map[string]verify.Pod{"veth1": web.Pod},
		kernel: verify.Kernel{1: {Name: "veth1", Own: verify.Pair{{Bytes: 1007, Packets: 11}, {Bytes: 2007, Packets: 21}}}},
		gone: []departed{{podPlan: podPlan{namespace: "batch", name: "report"}, metered: report,
			own: verify.Pair{{Bytes: 11000, Packets: 110}, {Bytes: 12000, Packets: 120}}}},
	}
}

// sides are what both sides say, and which pods there are by device.
type sides struct {
	metrics verify.Exposition
	agent   *verify.Agent
	kernel  verify.Kernel
	pods    map[string]verify.Pod
	gone    []departed
}

// books are what the demo makes of them.
func (s *sides) books() *books {
	observation := &verify.Observation{Before: s.kernel, After: s.kernel, First: s.agent, Second: s.agent, Metrics: s.metrics}
	round := verify.NewRound()
	for round.Try(observation) {
	}
	b := &books{Report: round.Report(), exposition: s.metrics, metered: byDevice(s.agent)}
	for device, pod := range s.pods {
		b.living(pod, device)
	}
	for _, d := range s.gone {
		b.departed(d, "veth2", s.agent.Parts())
	}
	return b
}

// reconcileCase is balanced books with one fault.
type reconcileCase struct {
	metric string // one to be changed
	by     float64
	spoil  func(*sides)
	want   []string // faults
}

// metricCases are faults of the agent's numbers.
func metricCases() map[string]reconcileCase {
	return map[string]reconcileCase{
		"balanced": {},
		"a byte more in a pod's series": {
			metric: `podmeter_pod_transmit_bytes_total{namespace="shop",pod="web"}`, by: 1,
			want: []string{
				"interfaces + earlier interfaces = pod, transmit bytes: shop/web has 1000 on the left and 1001 on the right",
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
			metric: verify.ConservationError, by: 2, want: []string{verify.ConservationError + " = 0: got 2"}},
	}
}

// bookCases are faults of everything else.
func bookCases() map[string]reconcileCase {
	return map[string]reconcileCase{
		"a byte more in the kernel": {
			spoil: func(s *sides) { s.gone[0].own[flows.Receive].Bytes++ },
			want:  []string{"veth2 of batch/report, receive: kernel minus podmeter is 1 / 0, not 0 / 0"}},
		"a byte more in the kernel, of a living pod": {
			spoil: func(s *sides) {
				s.kernel[1] = verify.Device{Name: "veth1", Own: verify.Pair{{Bytes: 1008, Packets: 11}, {Bytes: 2007, Packets: 21}}}
			},
			want: []string{"veth1 of shop/web, transmit: kernel minus podmeter is 1 / 0, not 0 / 0"}},
		"a byte less in what is exported of an interface": {
			spoil: func(s *sides) { s.agent.Interfaces[0].Exported[flows.Transmit].Bytes-- },
			want: []string{
				"veth1 of shop/web, transmit: kernel minus podmeter is 1 / 0, not 0 / 0",
				"interfaces + earlier interfaces = pod, transmit bytes: shop/web has 999 on the left and 1000 on the right",
			}},
		"a difference that the agent explains": {
			spoil: func(s *sides) {
				s.agent.Interfaces[0].Difference[flows.Transmit] = verify.Delta{Bytes: 66, Packets: 1}
				s.kernel[1] = verify.Device{Name: "veth1", Own: verify.Pair{{Bytes: 1073, Packets: 12}, {Bytes: 2007, Packets: 21}}}
			},
			want: []string{"veth1 of shop/web, transmit: not equal, but \"explained\": segments that podmeter saw merged (TSO off at the pod's end, GRO on at the host's), XDP, or a program that hid packets for a moment"}},
		"what passed before is said to be counted": {
			spoil: func(s *sides) { s.agent.Interfaces[0].Seeded = true },
			want: []string{
				"veth1 of shop/web, transmit: kernel minus podmeter is 7 / 1, not 0 / 0",
				"veth1 of shop/web, receive: kernel minus podmeter is 7 / 1, not 0 / 0",
			}},
		"what passed before is said not to be counted": {
			spoil: func(s *sides) { s.gone[0].metered.Seeded = false },
			want: []string{
				"veth2 of batch/report, transmit: kernel minus podmeter is -7 / -1, not 0 / 0",
				"veth2 of batch/report, receive: kernel minus podmeter is -7 / -1, not 0 / 0",
			}},
		"an interface that is not metered": {
			spoil: func(s *sides) { s.pods["veth3"] = verify.Pod{Namespace: "shop", Name: "api"} },
			want:  []string{"veth3 of shop/api: the agent does not meter it"}},
		"an interface of another pod": {
			spoil: func(s *sides) { s.pods["veth1"] = verify.Pod{Namespace: "shop", Name: "api"} },
			want: []string{
				`veth1 of shop/api: the agent takes it for an interface of "shop/web"`,
				"shop/web: it has series, and is none of the demo's pods",
			}},
		"a stranger's interface": {
			spoil: func(s *sides) {
				s.agent.Interfaces = append(s.agent.Interfaces, verify.Interface{Name: uplink, Index: 9})
				s.kernel[9] = verify.Device{Name: uplink}
			},
			want: []string{uplink + ": the agent meters it, and it is no pod's"}},
		"a stranger's series": {
			spoil: func(s *sides) { s.gone = nil },
			want:  []string{"batch/report: it has series, and is none of the demo's pods"}},
		"no IPv6": {
			spoil: func(s *sides) {
				for _, sample := range s.metrics["podmeter_flow_transmit_bytes_total"] {
					sample.Labels["peer_ip"] = ""
				}
				for _, sample := range s.metrics["podmeter_flow_receive_bytes_total"] {
					sample.Labels["peer_ip"] = "198.51.100.10"
				}
			},
			want: []string{"IPv6: no byte was counted"}},
		"no conservation error exported": {
			spoil: func(s *sides) { delete(s.metrics, verify.ConservationError) },
			want:  []string{verify.ConservationError + " = 0: the agent does not export it"}},
		"no receive series": {
			spoil: func(s *sides) {
				for _, name := range []string{"podmeter_external_receive_bytes_total", "podmeter_flow_receive_bytes_total", "podmeter_pod_receive_bytes_total"} {
					delete(s.metrics, name)
				}
				s.agent.Interfaces[0].Exported[flows.Receive].Bytes = 0
				s.agent.Earlier[verify.Pod{Namespace: "batch", Name: "report"}] = verify.Pair{{Bytes: 11000, Packets: 110}, {Packets: 120}}
				s.kernel[1] = verify.Device{Name: "veth1", Own: verify.Pair{{Bytes: 1007, Packets: 11}, {Bytes: 7, Packets: 21}}}
				s.gone[0].own[flows.Receive].Bytes = 0
			},
			want: []string{
				"flow + flow_retired = pod, receive bytes: no pod has such series",
				`external + external_retired = flow + flow_retired of peer_kind="external", receive bytes: no pod has such series`,
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
			s := balancedSides(t, metrics)
			if c.spoil != nil {
				c.spoil(s)
			}
			r := s.books().reconcile()
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
	balancedSides(t, balancedMetrics()).books().reconcile().write(&text)
	for _, want := range []string{
		"shop/web      veth1         transmit     1,000 / 10          7 / 1  not counted    1,007 / 11       0 / 0\n",
		"batch/report  veth2 (gone)  receive    12,000 / 120          7 / 1  counted      12,000 / 120       0 / 0\n",
		"shop/web       595   2,400          5\n",
		"equal  podmeter_conservation_error_bytes_total = 0\n",
		"equal  interfaces + earlier interfaces = pod, receive packets\n",
		"All equal: 26,000 bytes in 260 packets, exact on 2 interfaces in both directions.\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("got no %q in\n%s", want, &text)
		}
	}
}
