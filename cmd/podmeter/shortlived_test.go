// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/promtest"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// shippedFeatures are the feature flags of the shipped Prometheus.
func shippedFeatures(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile("../../deploy/kubernetes/overlays/prometheus/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`--enable-feature=\S+`).FindAllString(string(content), -1)
}

// queryOfNew returns the query of docs/METRICS.md that has the first value of series in any
// Prometheus.
func queryOfNew(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("../../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(content), "\n## What rate() sees\n")
	for part := range strings.SplitSeq(section, "```promql\n") {
		if query, _, found := strings.Cut(part, "```"); found && strings.Contains(query, "last_over_time(") {
			return query
		}
	}
	t.Fatal("docs/METRICS.md has no such query")
	return ""
}

// The shipped Prometheus has the bytes of pods that live for a second in increase(), and any
// other in the query that is written for it: each of their series begins with all that it
// will ever have.
func TestPodsOfASecondInPrometheus(t *testing.T) {
	ktest.Privileged(t)
	for _, test := range []struct {
		name, binary, query string
		features            []string
	}{
		{"shipped", promtest.Current(t), "sum(increase(podmeter_pod_transmit_bytes_total[1h]))", shippedFeatures(t)},
		{"oldest", promtest.Debian(t), queryOfNew(t), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			prometheus, _ := startPrometheus(t, test.binary, h.node, test.features...)
			p := start(t, h.node, nil, h.flags()...)
			h.awaitAttached(t, p)
			awaitSum(t, prometheus, "count(podmeter_build_info)", 1)
			const pods, datagrams, size = 50, 20, 100
			for n := range pods {
				h.livesShortly(t, p, n, datagrams, size)
			}
			const headers = 14 + 20 + 8
			want := float64(pods * datagrams * (size + headers))
			awaitSum(t, prometheus, `sum(podmeter_pod_transmit_bytes_total{pod=~"short.+"})`, want)
			got := value(t, prometheus, strings.ReplaceAll(test.query, "podmeter_pod_transmit_bytes_total", `podmeter_pod_transmit_bytes_total{pod=~"short.+"}`))
			if math.Abs(got-want) > want/100 {
				t.Errorf("%s: got %.0f bytes, want the %.0f that were sent", test.query, got, want)
			}
			p.terminate(t)
		})
	}
}

// livesShortly lets a pod come, send datagrams once it is metered, and go.
func (h *host) livesShortly(t *testing.T, p *process, n, datagrams, size int) {
	t.Helper()
	device := fmt.Sprintf("short%d", n)
	pod := h.node.Pod(t, ktest.PodOptions{Device: device, Introduced: true,
		Gateway: fmt.Sprintf("10.9.%d.1/24", n), Address: fmt.Sprintf("10.9.%d.2/24", n)})
	h.await(t, p, device+" is attached", func(s *agent.Status) bool {
		return slices.ContainsFunc(s.Interfaces, func(i agent.InterfaceStatus) bool { return i.Name == device && i.State == "attached" })
	})
	pod.Send(t, pod.Gateway+":9", size, datagrams)
	h.node.DeleteLink(t, device)
}

// value evaluates a query at the time of its last samples, so that nothing is extrapolated.
func value(t *testing.T, prometheus promv1.API, query string) float64 {
	t.Helper()
	last := ask(t, prometheus, "max(timestamp(podmeter_pod_transmit_bytes_total))", time.Now())
	return ask(t, prometheus, query, time.UnixMilli(int64(last*1000)))
}

// ask returns a query's first value, NaN if there is none.
func ask(t *testing.T, prometheus promv1.API, query string, at time.Time) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answer, _, _, err := prometheus.Query(ctx, query, at)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	if vector, ok := answer.(model.Vector); ok && len(vector) > 0 {
		return float64(vector[0].Value)
	}
	return math.NaN()
}

func awaitSum(t *testing.T, prometheus promv1.API, query string, want float64) {
	t.Helper()
	ktest.AwaitWithin(t, agentPatience, query, func() string {
		if got := ask(t, prometheus, query, time.Now()); got != want {
			return fmt.Sprintf("got %v, want %v", got, want)
		}
		return ""
	})
}
