// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/prometheus/common/model"
)

// What the agent writes to the Prometheus of the manifests is what it serves, to the byte:
// also of the time after Prometheus was killed and out of reach, and the agent was rolled out.
func TestRemoteWrite(t *testing.T) {
	c := inCluster(t)
	const namespace = "e2e-written"
	t.Cleanup(func() { _ = os.RemoveAll("/var/lib/podmeter") }) // the node's own
	p := c.monitoring(t, "testdata/remotewrite")
	c.world(t, namespace)
	client, echo := c.podOf(t, namespace, "client").Metadata.Name, c.podOf(t, namespace, "echo").Status.PodIPs[0].IP
	var sent float64
	talk := func(d datagrams) {
		t.Helper()
		c.traffic(t, namespace, client, request{d.count * d.size, d.size}.to(net.JoinHostPort(echo, port))...)
		c.traffic(t, namespace, client, d.to(net.JoinHostPort(echo, port))...)
		sent += d.counters(echo).transmitBytes
		ktest.AwaitWithin(t, patience, "what was sent", func() string {
			if got := c.podmeter(t).sum("podmeter_flow_transmit_bytes_total", "namespace", namespace, "pod", client, "protocol", "udp"); got != sent {
				return fmt.Sprintf("got %.0f B, want %.0f", got, sent)
			}
			return ""
		})
	}
	now := func() map[string]float64 { return c.served(t, namespace) }
	talk(datagrams{30, 500})
	p.awaitWritten(t, "what is served, written", "", now)
	p.await(t, "up", fmt.Sprintf(`up{job="written", instance=%q, node=%q} == 1`, c.node, c.node), present)

	c.reachable(t, false)
	// What has a connection would keep it.
	ctr(t, "tasks", "kill", "--signal", "KILL", container(t, monitoringNamespace, c.pods(t, monitoringNamespace)[0].Metadata.Name))
	c.awaitSpooled(t)
	talk(datagrams{20, 700})
	var meanwhile map[string]float64
	var at time.Time
	ktest.AwaitWithin(t, patience, "a sample with that", func() string {
		meanwhile = now()
		c.awaitSpooled(t)
		at = time.Now()
		return cmp.Diff(meanwhile, now()) // neighbours are asked for at any time
	})
	c.kubectl(t, "", "rollout", "restart", "--namespace", agentNamespace, "daemonset/podmeter")
	c.rolledOut(t, agentNamespace, "daemonset/podmeter")
	talk(datagrams{10, 900})
	c.awaitSpooled(t)
	c.reachable(t, true)
	p.awaitWritten(t, "what is served after the outage, written", "", now)
	p.awaitWritten(t, "what was served in the outage, written", fmt.Sprintf(" @ %.3f", float64(at.UnixMilli())/1000),
		func() map[string]float64 { return meanwhile })

	queries := []string{`podmeter_remote_write_requests_total{outcome=~"refused|dropped"} != 0`}
	for id := range meanwhile {
		name, _, _ := strings.Cut(id, "{")
		queries = append(queries, fmt.Sprintf(`resets(%s{job="written", namespace=%q}[10m]) != 0`, name, namespace))
	}
	slices.Sort(queries)
	for _, query := range slices.Compact(queries) {
		if found, err := p.query(query); err != nil || len(found) != 0 {
			t.Errorf("%s: got %v, %v, want nothing", query, found, err)
		}
	}
}

// reachable lets the Service of Prometheus have its pod, or none.
func (c *cluster) reachable(t *testing.T, is bool) {
	t.Helper()
	name := map[bool]string{true: "prometheus", false: "nobody"}[is]
	c.kubectl(t, "", "patch", "service", "prometheus", "--namespace", monitoringNamespace, "--patch",
		fmt.Sprintf(`{"spec": {"selector": {"app.kubernetes.io/name": %q}}}`, name))
}

// awaitSpooled waits until one more sample is on the node's disk.
func (c *cluster) awaitSpooled(t *testing.T) {
	t.Helper()
	last := func() (name string) {
		files, err := filepath.Glob("/var/lib/podmeter/remote-write/*/*.rw") // by their numbers
		if err != nil {
			t.Fatal(err)
		}
		if len(files) > 0 {
			name = files[len(files)-1]
		}
		return name
	}
	before := last()
	ktest.AwaitWithin(t, patience, "a sample in the spool", func() string {
		if now := last(); now <= before {
			return "the last is " + now
		}
		return ""
	})
}

// served returns what the agent serves of a namespace's pods.
func (c *cluster) served(t *testing.T, namespace string) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	for name, family := range c.podmeter(t) {
		if !strings.HasPrefix(name, "podmeter_pod_") && !strings.HasPrefix(name, "podmeter_flow_") || !strings.HasSuffix(name, "_total") {
			continue
		}
		for _, m := range family.GetMetric() {
			if !has(m, []string{"namespace", namespace}) {
				continue
			}
			metric := model.Metric{"__name__": model.LabelValue(name)}
			for label, value := range labels(m) {
				metric[model.LabelName(label)] = model.LabelValue(value)
			}
			values[identity(metric)] = m.GetCounter().GetValue()
		}
	}
	return values
}

// awaitWritten waits until the job written has these series of the test's namespace, and no
// others.
func (p *prometheus) awaitWritten(t *testing.T, what, at string, want func() map[string]float64) {
	t.Helper()
	p.await(t, what, `{job="written", namespace="e2e-written", __name__=~"podmeter_(pod|flow)_.+_total"}`+at, func(found model.Vector) string {
		got := make(map[string]float64)
		for _, s := range found {
			for _, given := range []model.LabelName{"job", "instance", "node"} {
				delete(s.Metric, given)
			}
			got[identity(s.Metric)] = float64(s.Value)
		}
		if len(got) == 0 {
			return "got nothing"
		}
		return cmp.Diff(want(), got)
	})
	t.Log(what)
}
