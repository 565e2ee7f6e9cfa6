// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
)

// batch is how many pods come at a time; they have few addresses to take turns with.
const batch = 10

// While pods come and go so fast that an address has another owner within seconds,
// no byte is on the wrong pod: each pod's series say what that pod sent, and its
// server's series say so of each peer or, where an address changed hands within one
// flow, of nobody.
func TestAddressesOfManyPods(t *testing.T) {
	c := inCluster(t)
	const namespace = "e2e-reuse"
	c.world(t, namespace)
	echo := c.podOf(t, namespace, "echo")
	before := c.podmeter(t).flows(namespace, echo.Metadata.Name)

	pods := 60
	if long {
		pods = 300
	}
	owners := make(map[string]int) // of each address
	want := make(map[string]counters)
	for first := 0; first < pods; first += batch {
		names := c.passers(t, namespace, echo, first, want)
		for _, p := range c.allPods(t, namespace) {
			for _, ip := range p.Status.PodIPs {
				owners[ip.IP]++
			}
		}
		c.kubectl(t, "", "delete", "pods", "--namespace", namespace, "--selector", "app=passer", "--wait=false", "--grace-period=0", "--force")
		for _, name := range names {
			c.awaitFlows(t, namespace, name, nil, flows{
				{"pod", namespace, "echo", "deployment", "", "same_node", "udp"}: want[name],
			})
		}
	}
	c.checkPeers(t, namespace, echo, before, want)
	again := 0
	for _, times := range owners {
		if times > 1 {
			again++
		}
	}
	if again < batch {
		t.Errorf("got %d addresses with several owners, want %d at least", again, batch)
	}
}

// passers lets a batch of pods come, send and end, and adds what each sends, which
// is like no other's.
func (c *cluster) passers(t *testing.T, namespace string, echo pod, first int, want map[string]counters) (names []string) {
	t.Helper()
	var manifests strings.Builder
	for n := first; n < first+batch; n++ {
		d, address := datagrams{10 + n, 100 + n}, echo.Status.PodIPs[n%2].IP
		name := fmt.Sprintf("passer-%03d", n)
		names = append(names, name)
		want[name] = d.counters(address)
		fmt.Fprintf(&manifests, `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q, "labels": {"app": "passer"}}, "spec": {
			"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
			"containers": [{"name": "traffic", "image": "podmeter.test/traffic:1", "command": ["traffic", "%s"]}]}}`+"\n",
			name, strings.Join(d.to(net.JoinHostPort(address, port)), `", "`))
	}
	c.kubectl(t, manifests.String(), "apply", "--namespace", namespace, "--filename", "-")
	c.kubectl(t, "", "wait", "--namespace", namespace, "--for", "jsonpath={.status.phase}=Succeeded", "--timeout", patience.String(),
		"pods", "--selector", "app=passer")
	return names
}

// checkPeers compares what a server counted of each of its clients.
func (c *cluster) checkPeers(t *testing.T, namespace string, server pod, before flows, want map[string]counters) {
	t.Helper()
	var sum counters
	for _, w := range want {
		sum = sum.plus(w.mirrored(), 1)
	}
	var grown flows
	ktest.AwaitWithin(t, patience, "all of the clients' bytes at their server", func() string {
		grown = c.podmeter(t).flows(namespace, server.Metadata.Name).since(before)
		var all counters
		for _, got := range grown {
			all = all.plus(got, 1)
		}
		if all != sum {
			return fmt.Sprintf("got %v, want %v", all, sum)
		}
		return ""
	})
	exact := 0
	for r, got := range grown {
		w := want[r.peer].mirrored()
		switch {
		case r.peerKind == "unattributed":
			t.Logf("of nobody: %v", got)
		case r.peerKind != "pod" || got.exceeds(w):
			t.Errorf("%+v: got %v, want %v at most", r, got, w)
		case got == w:
			exact++
		}
	}
	t.Logf("%d of %d clients wholly by name", exact, len(want))
}

// exceeds reports whether any counter is above the other's.
func (c counters) exceeds(o counters) bool {
	return c.transmitBytes > o.transmitBytes || c.transmitPackets > o.transmitPackets ||
		c.receiveBytes > o.receiveBytes || c.receivePackets > o.receivePackets
}

// A pod of a StatefulSet that is made again under its name goes on with its series.
func TestPodUnderItsNameAgain(t *testing.T) {
	c := inCluster(t)
	const namespace = "e2e-again"
	c.world(t, namespace)
	echo := c.podOf(t, namespace, "echo")
	var sum counters
	for life := range 3 {
		store := c.podOf(t, namespace, "store")
		d, address := datagrams{20 + life, 300 + life}, echo.Status.PodIPs[life%2].IP
		c.traffic(t, namespace, store.Metadata.Name, d.to(net.JoinHostPort(address, port))...)
		sum = sum.plus(d.counters(address), 1)
		c.kubectl(t, "", "delete", "pod", "--namespace", namespace, store.Metadata.Name)
		c.rolledOut(t, namespace, "statefulset/store")
	}
	c.awaitFlows(t, namespace, "store-0", nil, flows{
		{"pod", namespace, "echo", "deployment", "", "same_node", "udp"}: sum,
	})
}
