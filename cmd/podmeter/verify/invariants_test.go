// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
)

// balanced are the metrics of two pods and an uplink that agree with [balancedAgent].
func balanced() map[string]float64 {
	metrics := map[string]float64{
		ConservationError: 0,
		`podmeter_lost_bytes_total{reason="unbound"}`:                                                 40,
		`podmeter_lost_bytes_total{reason="no_interface"}`:                                            0,
		`podmeter_residue_bytes_total`:                                                                11,
		`podmeter_unplaced_bytes_total`:                                                               0,
		`podmeter_flow_retired_transmit_bytes_total{namespace="shop",pod="web",peer_kind="external"}`: 5,
		`podmeter_external_retired_transmit_bytes_total{namespace="shop",pod="web"}`:                  5,
	}
	for n, pod := range []string{`namespace="shop",pod="web"`, `namespace="batch",pod="report"`} {
		for direction, d := range []string{"transmit", "receive"} {
			bytes := float64(1000 * (10*n + direction + 1))
			pods, flow := "podmeter_pod_"+d, "podmeter_flow_"+d
			metrics[fmt.Sprintf("%s_bytes_total{%s}", pods, pod)] = bytes
			metrics[fmt.Sprintf("%s_packets_total{%s}", pods, pod)] = bytes / 100
			metrics[fmt.Sprintf(`%s_bytes_total{%s,peer_kind="pod"}`, flow, pod)] = bytes - 400
			metrics[fmt.Sprintf(`%s_bytes_total{%s,peer_kind="external"}`, flow, pod)] = 300
			metrics[fmt.Sprintf(`%s_bytes_total{%s,peer_kind="unattributed"}`, flow, pod)] = 100
			metrics[fmt.Sprintf(`%s_packets_total{%s,peer_kind="pod"}`, flow, pod)] = bytes/100 - 4
			metrics[fmt.Sprintf(`%s_packets_total{%s,peer_kind="external"}`, flow, pod)] = 4
			metrics[fmt.Sprintf(`podmeter_external_%s_bytes_total{%s,country="CH"}`, d, pod)] = 300
		}
	}
	metrics[`podmeter_flow_transmit_bytes_total{namespace="shop",pod="web",peer_kind="external"}`] -= 5
	metrics[`podmeter_external_transmit_bytes_total{namespace="shop",pod="web",country="CH"}`] -= 5
	for _, d := range []string{"transmit", "receive"} {
		for _, u := range []string{"bytes", "packets"} {
			metrics[fmt.Sprintf(`podmeter_uplink_interface_%s_%s_total{interface="eth0"}`, d, u)] = 900
			metrics[fmt.Sprintf(`podmeter_uplink_%s_%s_total{interface="eth0",peer_kind="external"}`, d, u)] = 890
			metrics[fmt.Sprintf(`podmeter_uplink_retired_%s_%s_total{interface="eth0"}`, d, u)] = 10
		}
	}
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

func parse(t *testing.T, metrics map[string]float64) Exposition {
	t.Helper()
	e, err := Parse(expose(metrics))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// balancedAgent has web with 7 bytes before, and report, which has two interfaces and
// had one before.
func balancedAgent() *Agent {
	web := Interface{Name: "veth1", Index: 1, Pod: Pod{"shop", "web"}, State: "attached"}
	web.Exported = Pair{counters(1000, 10), counters(2000, 20)}
	web.Before = Pair{counters(7, 1), counters(7, 1)}
	report := Interface{Name: "veth2", Index: 2, Pod: Pod{"batch", "report"}, State: "attached", Seeded: true}
	report.Exported = Pair{counters(10_000, 100), counters(11_000, 110)}
	report.Before = Pair{counters(50, 1), {}}
	second := Interface{Name: "veth3", Index: 3, Pod: Pod{"batch", "report"}, State: "attached", Seeded: true}
	second.Exported = Pair{counters(900, 9), counters(950, 9)}
	return &Agent{
		Node: "node-a", Interfaces: []Interface{web, report, second},
		Earlier: map[Pod]Pair{{"batch", "report"}: {counters(100, 1), counters(50, 1)}},
	}
}

// kernelOf is what the kernel says when it agrees with the agent.
func kernelOf(a *Agent) Kernel {
	kernel := make(Kernel)
	for _, i := range a.Interfaces {
		device := Device{Name: i.Name, LeadsAway: true}
		for d := range i.Exported {
			device.Own[d] = i.Exported[d]
			if !i.Seeded {
				device.Own[d].Add(i.Before[d])
			}
		}
		kernel[i.Index] = device
	}
	return kernel
}

func observe(t *testing.T) *Observation {
	t.Helper()
	return &Observation{
		Before: kernelOf(balancedAgent()), After: kernelOf(balancedAgent()), First: balancedAgent(), Second: balancedAgent(),
		Metrics: parse(t, balanced()),
	}
}

const (
	externalTransmit = `external + external_retired = flow + flow_retired of peer_kind="external", transmit bytes`
	externalReceive  = `external + external_retired = flow + flow_retired of peer_kind="external", receive bytes`
)

// Each invariant finds what breaks it, by one byte or packet, and no other.
func TestInvariants(t *testing.T) {
	for _, c := range []struct {
		name, metric string
		by           float64
		want         []string
	}{
		{name: "balanced"},
		{"a byte more in a pod's series", `podmeter_pod_transmit_bytes_total{namespace="shop",pod="web"}`, 1, []string{
			"flow + flow_retired = pod, transmit bytes: shop/web has 1000 on the left and 1001 on the right",
			"interfaces + earlier interfaces = pod, transmit bytes: shop/web has 1000 on the left and 1001 on the right",
		}},
		{"a packet less in a pod's series", `podmeter_pod_receive_packets_total{namespace="batch",pod="report"}`, -1, []string{
			"flow + flow_retired = pod, receive packets: batch/report has 120 on the left and 119 on the right",
			"interfaces + earlier interfaces = pod, receive packets: batch/report has 120 on the left and 119 on the right",
		}},
		{"a packet less in a flow row", `podmeter_flow_receive_packets_total{namespace="batch",pod="report",peer_kind="pod"}`, -1,
			[]string{"flow + flow_retired = pod, receive packets: batch/report has 119 on the left and 120 on the right"}},
		{"a byte more in an external flow row", `podmeter_flow_transmit_bytes_total{namespace="shop",pod="web",peer_kind="external"}`, 1, []string{
			"flow + flow_retired = pod, transmit bytes: shop/web has 1001 on the left and 1000 on the right",
			externalTransmit + ": shop/web has 300 on the left and 301 on the right",
		}},
		{"a byte less in a place", `podmeter_external_receive_bytes_total{namespace="shop",pod="web",country="CH"}`, -1,
			[]string{externalReceive + ": shop/web has 299 on the left and 300 on the right"}},
		{"a retired row that is lost", `podmeter_external_retired_transmit_bytes_total{namespace="shop",pod="web"}`, -5,
			[]string{externalTransmit + ": shop/web has 295 on the left and 300 on the right"}},
		{"a conservation error", ConservationError, 2, []string{ConservationError + " = 0: got 2"}},
		{"bytes of no interface", `podmeter_lost_bytes_total{reason="no_interface"}`, 3,
			[]string{`podmeter_lost_bytes_total{reason="no_interface"} = 0: got 3`}},
		{"lost bytes of an unbound interface are none of it", `podmeter_lost_bytes_total{reason="unbound"}`, 9, nil},
		{"a packet more of an uplink", `podmeter_uplink_interface_receive_packets_total{interface="eth0"}`, 1,
			[]string{"uplink + uplink_retired = uplink_interface, receive packets: eth0 has 900 on the left and 901 on the right"}},
		{"a retired byte less of an uplink", `podmeter_uplink_retired_transmit_bytes_total{interface="eth0"}`, -1,
			[]string{"uplink + uplink_retired = uplink_interface, transmit bytes: eth0 has 899 on the left and 900 on the right"}},
		{"a stranger's series", `podmeter_pod_transmit_bytes_total{namespace="far",pod="db"}`, 8, []string{
			"flow + flow_retired = pod, transmit bytes: far/db has 0 on the left and 8 on the right",
			"interfaces + earlier interfaces = pod, transmit bytes: far/db has 0 on the left and 8 on the right",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			metrics := balanced()
			if _, there := metrics[c.metric]; !there && c.by < 0 {
				t.Fatalf("no metric %s", c.metric)
			}
			metrics[c.metric] += c.by
			delete(metrics, "")
			o := observe(t)
			o.Metrics = parse(t, metrics)
			r := NewRound()
			if again := r.Try(o); again {
				t.Error("got another try wanted, where all is judged")
			}
			report := r.Report()
			if diff := cmp.Diff(c.want, report.Faults()); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
			if got, want := report.Code, map[bool]int{false: CodeUnequal, true: CodeEqual}[len(c.want) == 0]; got != want {
				t.Errorf("code: got %d, want %d", got, want)
			}
		})
	}
}

// What is not exported at all is a fault, but for uplinks, of which there may be none.
func TestInvariantsOfNothing(t *testing.T) {
	r := NewRound()
	r.Try(&Observation{First: &Agent{}, Second: &Agent{}})
	want := []string{
		ConservationError + " = 0: the agent does not export it",
		`podmeter_lost_bytes_total{reason="no_interface"} = 0: the agent does not export it`,
	}
	if diff := cmp.Diff(want, r.Report().Faults()); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if _, err := Parse([]byte("<html>not found</html>\n")); err == nil {
		t.Error("no exposition: got no error")
	}
}

// A pod's series may lie anywhere between what the agent says before and after the
// scrape, and nowhere else; a name whose series began anew meanwhile is left out.
func TestPodsThatMove(t *testing.T) {
	for _, c := range []struct {
		name         string
		first, after uint64 // bytes that the interface has
		holds        bool
	}{
		{"still", 1000, 1000, true},
		{"moves", 900, 1100, true},
		{"moved before", 1000, 1500, true},
		{"moved after", 500, 1000, true},
		{"too little", 1001, 1100, false},
		{"too much", 900, 999, false},
		{"begins anew", 5000, 10, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := observe(t)
			o.First.Interfaces[0].Exported[flows.Transmit].Bytes = c.first
			o.Second.Interfaces[0].Exported[flows.Transmit].Bytes = c.after
			all := o.podsOfInterfaces()
			if got := !slices.ContainsFunc(all, func(i Invariant) bool { return !i.Holds() }); got != c.holds {
				t.Errorf("got %+v, want them to hold: %v", all, c.holds)
			}
		})
	}
}

// Names that are not UTF-8 are the same pod, however their bytes were replaced.
func TestPodOf(t *testing.T) {
	want := Pod{"a\ufffdb", "c\ufffd"}
	for _, got := range []Pod{PodOf("a\xff\xfeb", "c\xff"), PodOf("a\ufffd\ufffdb", "c\ufffd"), PodOf("a\ufffdb", "c\xff\ufffd\xff")} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
