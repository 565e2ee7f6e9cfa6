// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/prometheus/common/model"
)

// reservations is where the CNI plugin host-local has which addresses are taken, a file each.
const reservations = "/var/lib/cni/networks/podmeter"

// The Prometheus of the manifests has the bytes of Jobs that live for a second in increase():
// each of their series begins with all that it will ever have.
func TestJobsOfASecond(t *testing.T) {
	c := inCluster(t)
	const namespace, jobs = "e2e-seconds", 50
	p := c.monitoring(t, manifests+"overlays/prometheus")
	c.world(t, namespace)
	echo := c.podOf(t, namespace, "echo")
	p.await(t, "scrapes before the Jobs", `count_over_time(podmeter_build_info{job="podmeter"}[5m]) > 2`, present)
	d, address := datagrams{200, 1000}, echo.Status.PodIPs[0].IP
	c.kubectl(t, fmt.Sprintf(`{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "second"}, "spec": {"completions": %d, "parallelism": 5,
		"template": {"spec": %s}}}`, jobs, ofASecond(d, address)), "apply", "--namespace", namespace, "--filename", "-")
	c.completed(t, namespace, "second")
	const series = `podmeter_pod_transmit_bytes_total{namespace="` + namespace + `", pod=~"second-.+"}`
	want := float64(jobs) * d.counters(address).transmitBytes
	p.await(t, "all Jobs' bytes", "sum("+series+")", within(want))
	// At the time of its last samples, so that nothing is extrapolated.
	var last string
	p.await(t, "the time of the last samples", "max(timestamp("+series+"))", func(found model.Vector) string {
		if len(found) == 0 {
			return "got nothing"
		}
		last = fmt.Sprintf("%.3f", float64(found[0].Value))
		return ""
	})
	p.await(t, "their increase", "sum(increase("+series+"[15m] @ "+last+"))", within(want))
}

// within wants a value within 1 % of another.
func within(want float64) func(model.Vector) string {
	return func(found model.Vector) string {
		if len(found) != 1 || math.Abs(float64(found[0].Value)-want) > want/100 {
			return fmt.Sprintf("got %v, want %v within 1 %%", found, want)
		}
		return ""
	}
}

// ofASecond is the spec of a pod that sends, and ends a second later.
func ofASecond(d datagrams, address string) string {
	return fmt.Sprintf(`{"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
		"containers": [{"name": "traffic", "image": "podmeter.test/traffic:1", "command": ["sh", "-c", "traffic %s && sleep 1"]}]}`,
		strings.Join(d.to(net.JoinHostPort(address, port)), " "))
}

// Pods of a second that have one address, one after the other, each have their own series
// with what they sent.
func TestPodsOfASecondOnOneAddress(t *testing.T) {
	c := inCluster(t)
	const namespace, pods = "e2e-address", 12
	c.world(t, namespace)
	echo := c.podOf(t, namespace, "echo")
	address, had := echo.Status.PodIPs[0].IP, make(map[string]int)
	want := make(map[string]counters)
	for n := range pods {
		c.takeFirstAddress(t)
		name, d := fmt.Sprintf("second-%02d", n), datagrams{10 + n, 100 + n}
		want[name] = d.counters(address)
		c.kubectl(t, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q}, "spec": %s}`, name, ofASecond(d, address)),
			"apply", "--namespace", namespace, "--filename", "-")
		c.kubectl(t, "", "wait", "--namespace", namespace, "--for", "jsonpath={.status.phase}=Succeeded", "--timeout", patience.String(), "pod/"+name)
		ip := string(c.kubectl(t, "", "get", "pod", name, "--namespace", namespace, "--output", "jsonpath={.status.podIP}"))
		had[ip]++
		c.kubectl(t, "", "delete", "pod", name, "--namespace", namespace, "--grace-period=0", "--force")
		ktest.AwaitWithin(t, patience, "the address is free", func() string {
			if _, err := os.Stat(filepath.Join(reservations, ip)); err == nil {
				return ip + " is taken"
			}
			return ""
		})
	}
	if len(had) != 1 {
		t.Errorf("got addresses %v, want one", had)
	}
	for name, sent := range want {
		c.awaitFlows(t, namespace, name, nil, flows{
			{"pod", namespace, "echo", "deployment", "", "same_node", "udp"}: sent,
		})
		if got := c.podmeter(t).family("pod", namespace, name); got.transmitBytes < sent.transmitBytes || got.receiveBytes < sent.receiveBytes {
			t.Errorf("%s: got %v, want %v at least", name, got, sent)
		}
	}
}

// takeFirstAddress lets the plugin give out the first free address next, not the one after
// the last.
func (c *cluster) takeFirstAddress(t *testing.T) {
	t.Helper()
	last, err := filepath.Glob(filepath.Join(reservations, "last_reserved_ip.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range last {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}
