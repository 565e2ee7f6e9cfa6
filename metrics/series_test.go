// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/promtest"
)

// What a Prometheus has of two rows of TCP health, by how it scrapes: so many series, and each
// sample and the sum of all in every form that is there.
func TestSeriesInPrometheus(t *testing.T) {
	binary := promtest.Current(t)
	agent := func(classic bool) string {
		o := options(&source{snapshot: handMade(), agent: handMadeAgent()}, flows.Optional{})
		o.ClassicRTT = classic
		server := httptest.NewServer(unheld(newExporter(t, o)))
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	const native, always = "scrape_native_histograms: true", "scrape_native_histograms: true, always_scrape_classic_histograms: true"
	agents := map[bool]string{false: agent(false), true: agent(true)}
	tests := []struct {
		name, settings                 string
		classic                        bool
		series                         int // of a row
		hasNative, hasBuckets, hasSums bool
	}{
		{"native", native, false, 5, true, false, false},
		{"native alone of both", native, true, 5, true, false, false},
		{"both", always, true, 15, true, true, true},
		{"both where there is one", always, false, 5, true, false, false},
		{"text", "scrape_protocols: [PrometheusText0.0.4]", false, 6, false, false, true},
		{"text with classic", "scrape_protocols: [PrometheusText0.0.4]", true, 14, false, true, true},
		{"OpenMetrics", "scrape_protocols: [OpenMetricsText1.0.0]", false, 6, false, false, true},
		{"OpenMetrics with classic", "scrape_protocols: [OpenMetricsText1.0.0]", true, 14, false, true, true},
		{"protobuf", "scrape_protocols: [PrometheusProto]", false, 7, false, false, true},
		{"protobuf with classic", "scrape_protocols: [PrometheusProto]", true, 14, false, true, true},
	}
	var jobs []string
	for _, test := range tests {
		jobs = append(jobs, fmt.Sprintf("{job_name: %q, honor_labels: true, scrape_interval: 1s, %s, static_configs: [{targets: [%q]}]}",
			test.name, test.settings, agents[test.classic]))
	}
	s := promtest.New(t, binary, "scrape_configs: ["+strings.Join(jobs, ", ")+"]")
	for _, test := range tests {
		of := fmt.Sprintf(`job=%q`, test.name)
		s.Await(`count({__name__=~"podmeter_tcp_.+", `+of+`})`, fmt.Sprint(2*test.series))
		for query, want := range map[string]string{
			`histogram_count(sum(podmeter_tcp_rtt_seconds{` + of + `}))`: where(test.hasNative, "10"),
			`histogram_sum(sum(podmeter_tcp_rtt_seconds{` + of + `}))`:   where(test.hasNative, "64.150123"),
			`sum(podmeter_tcp_rtt_seconds_bucket{le="4.0", ` + of + `})`: where(test.hasBuckets, "9"),
			`sum(podmeter_tcp_rtt_seconds_count{` + of + `})`:            where(test.hasSums, "10"),
			`sum(podmeter_tcp_rtt_seconds_sum{` + of + `})`:              where(test.hasSums, "64.150123"),
			`sum(podmeter_tcp_connections_opened_total{` + of + `})`:     "4",
			`sum(podmeter_tcp_connections_failed_total{` + of + `})`:     "9",
			`sum(podmeter_tcp_retransmitted_segments_total{` + of + `})`: "5",
			`sum(podmeter_tcp_retransmitted_bytes_total{` + of + `})`:    "6000",
		} {
			s.Await(query, want)
		}
	}
}

// where is a value if it is there.
func where(there bool, value string) string {
	if there {
		return value
	}
	return "none"
}
