// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
)

// While the API server is away metering goes on, and the age of identity says so. A
// pod that gets a new network meanwhile, as its sandbox ended, is bound all the same.
func TestParityWithoutAPIServer(t *testing.T) {
	c := inCluster(t)
	const namespace = "e2e-reborn"
	c.world(t, namespace)
	echo, store := c.podOf(t, namespace, "echo"), c.podOf(t, namespace, "store")
	d, address := datagrams{30, 500}, echo.Status.PodIPs[0].IP
	c.traffic(t, namespace, store.Metadata.Name, d.to(net.JoinHostPort(address, port))...)

	c.exchange(t, "e2e-away", outage, func() {
		component(t, "kill", "kube-apiserver")
		away := time.Now()
		ended := sandbox(t, namespace, "store-0")
		ctr(t, "tasks", "kill", "--signal", "KILL", ended)
		ktest.AwaitWithin(t, patience, "another sandbox of store-0", func() string {
			if sandbox(t, namespace, "store-0") == ended {
				return "still " + ended
			}
			return ""
		})
		c.traffic(t, namespace, "store-0", d.to(net.JoinHostPort(address, port))...)
		ktest.AwaitWithin(t, patience, "an age of identity of the outage", func() string {
			if age := c.age(t); age < outage || time.Since(away) < outage {
				return "age " + age.String()
			}
			return ""
		})
		component(t, "start", "kube-apiserver")
		ktest.AwaitWithin(t, patience, "a young identity", func() string {
			if age := c.age(t); age > outage/2 {
				return "age " + age.String()
			}
			return ""
		})
	})
	twice := d.counters(address).plus(d.counters(address), 1)
	c.awaitFlows(t, namespace, "store-0", nil, flows{
		{"pod", namespace, "echo", "deployment", "", "same_node", "udp"}: twice,
	})
}

// Nor do a restarted etcd and kubelet cost a byte.
func TestParityAcrossRestarts(t *testing.T) {
	c := inCluster(t)
	c.exchange(t, "e2e-restarts", outage, func() {
		for _, name := range []string{"etcd", "kubelet"} {
			component(t, "kill", name)
			time.Sleep(outage / 2) // as long as it is to be away
			component(t, "start", name)
		}
	})
}

// age is how old the agent says that its identities are.
func (c *cluster) age(t *testing.T) time.Duration {
	t.Helper()
	updated := c.podmeter(t).sum("podmeter_identity_last_update_timestamp_seconds")
	return time.Since(time.Unix(int64(updated), 0))
}

// component does something to a component of the cluster: start, stop or kill it.
func component(t *testing.T, action, name string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "../cluster/component.sh", action, name).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", action, name, err, out)
	}
}
