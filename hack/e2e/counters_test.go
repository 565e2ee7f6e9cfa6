// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// counters of a pod, both directions as the pod sees them.
type counters struct{ transmitBytes, transmitPackets, receiveBytes, receivePackets float64 }

// String tells them in the order of the fields.
func (c counters) String() string {
	return fmt.Sprintf("sent %.0f B in %.0f, received %.0f B in %.0f",
		c.transmitBytes, c.transmitPackets, c.receiveBytes, c.receivePackets)
}

// series is an exposition, by the name of the family.
type series map[string]*dto.MetricFamily

// scrape reads the series that an agent serves, if there is one.
func scrape(ctx context.Context) (series, error) {
	text, err := fetch(ctx, os.Getenv("PODMETER_METRICS"))
	if err != nil {
		return nil, err
	}
	return parse(text)
}

func parse(text []byte) (series, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return families, nil
}

// sum adds the series of a family that have these labels, given as name and value
// in turn.
func (s series) sum(family string, labels ...string) (sum float64) {
	for _, m := range s[family].GetMetric() {
		if has(m, labels) {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
		}
	}
	return sum
}

func has(m *dto.Metric, labels []string) bool {
	found := 0
	for _, pair := range m.GetLabel() {
		for n := 0; n < len(labels); n += 2 {
			if pair.GetName() == labels[n] && pair.GetValue() == labels[n+1] {
				found++
			}
		}
	}
	return found == len(labels)/2
}

// podmeter reads the agent's series.
func (c *cluster) podmeter(t *testing.T) series {
	t.Helper()
	s, err := scrape(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// family returns the counters of a pod in one of podmeter's families.
func (s series) family(name, namespace, pod string) counters {
	of := func(what string) float64 {
		return s.sum("podmeter_"+name+"_"+what+"_total", "namespace", namespace, "pod", pod)
	}
	return counters{of("transmit_bytes"), of("transmit_packets"), of("receive_bytes"), of("receive_packets")}
}

// kubelet reads the kubelet's cAdvisor.
func (c *cluster) kubelet(t *testing.T) series {
	t.Helper()
	s, err := parse(c.kubectl(t, "", "get", "--raw", "/api/v1/nodes/"+c.node+"/proxy/metrics/cadvisor"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// container returns the counters of a pod in cAdvisor's series.
func (s series) container(namespace, pod string) counters {
	of := func(what string) float64 {
		return s.sum("container_network_"+what+"_total", "namespace", namespace, "pod", pod, "interface", "eth0")
	}
	return counters{of("transmit_bytes"), of("transmit_packets"), of("receive_bytes"), of("receive_packets")}
}

// neverDown reads the agent's traffic series all the time, whenever there is an
// agent, until what it returns is called; a counter that is lower than before is an
// error.
func (c *cluster) neverDown(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		highest, scrapes := make(map[string]float64), 0
		for ctx.Err() == nil {
			if s, err := scrape(ctx); err == nil {
				scrapes++
				compare(t, s, highest)
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Logf("%d scrapes of %d series meanwhile", scrapes, len(highest))
	}()
	return func() {
		cancel()
		<-done
	}
}

// compare keeps the value of each series of traffic in highest.
func compare(t *testing.T, s series, highest map[string]float64) {
	for name, family := range s {
		if !strings.HasPrefix(name, "podmeter_pod_") && !strings.HasPrefix(name, "podmeter_flow_") ||
			!strings.HasSuffix(name, "_total") {
			continue
		}
		for _, m := range family.GetMetric() {
			id, value := name+fmt.Sprint(m.GetLabel()), m.GetCounter().GetValue()
			if value < highest[id] {
				t.Errorf("%s went down from %.0f to %.0f", id, highest[id], value)
			}
			highest[id] = value
		}
	}
}

// own reads the counters of a pod's interface in the pod itself.
func (c *cluster) own(t *testing.T, namespace, pod string) (own counters) {
	t.Helper()
	var out []byte
	// A kubelet that has just started does not know its pods yet.
	ktest.AwaitWithin(t, patience, "counters of the interface of "+namespace+"/"+pod, func() string {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var err error
		out, err = run(ctx, "", "exec", "--namespace", namespace, pod, "--", "sh", "-c",
			"cd /sys/class/net/eth0/statistics && cat tx_bytes tx_packets rx_bytes rx_packets")
		if err != nil {
			return err.Error()
		}
		return ""
	})
	_, err := fmt.Fscan(strings.NewReader(string(out)),
		&own.transmitBytes, &own.transmitPackets, &own.receiveBytes, &own.receivePackets)
	if err != nil {
		t.Fatalf("read the interface's counters of %s/%s from %q: %v", namespace, pod, out, err)
	}
	return own
}
