// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// A known number of bytes on each way lands on the right workload, Service and
// locality at both of its ends, and nowhere else.
func TestAttribution(t *testing.T) {
	c := inCluster(t)
	const namespace = "e2e-attribution"
	c.world(t, namespace)
	internet(t)
	client, echo := c.podOf(t, namespace, "client"), c.podOf(t, namespace, "echo")
	store, host := c.podOf(t, namespace, "store"), c.podOf(t, namespace, "host")
	cluster, headless := c.service(t, namespace, "echo"), c.endpoints(t, namespace, "store")

	toEcho := row{"pod", namespace, "echo", "deployment", "", "same_node", "udp"}
	byService, toStore := toEcho, toEcho
	byService.service = "echo"
	toStore.peer, toStore.peerType = "store", "statefulset"
	fromClient := row{"pod", namespace, "client", "deployment", "", "same_node", "udp"}
	fromNode := row{peerKind: "node", peer: c.node, locality: "same_node", protocol: "udp"}
	outside := row{peerKind: "external", locality: "external", protocol: "udp"}

	for n, family := range []string{"IPv4", "IPv6"} {
		ways := []way{
			{"ClusterIP", cluster[n], "7", client, byService, echo, fromClient},
			{"pod IP", echo.Status.PodIPs[n].IP, port, client, toEcho, echo, fromClient},
			{"headless Service", headless[n], port, client, toStore, store, fromClient},
			{"from the node to a pod IP", echo.Status.PodIPs[n].IP, port, host, row{}, echo, fromNode},
			{"from the node to a ClusterIP", cluster[n], "7", host, row{}, echo, fromNode},
			{"outside", []string{"198.51.100.7", "2001:db8:ffff::7"}[n], port, client, outside, pod{}, row{}},
		}
		for _, w := range ways {
			t.Run(family+" "+w.name, func(t *testing.T) { c.walk(t, namespace, w) })
		}
	}
	c.checkIdentities(t, namespace, 3)
}

// way is one from a pod to another, and how the flows are called at each end. An end
// that is not metered has no row.
type way struct {
	name, address, port string
	from                pod
	sent                row
	to                  pod
	received            row
}

// walk sends datagrams and a TCP request along the way.
func (c *cluster) walk(t *testing.T, namespace string, w way) {
	d := datagrams{25, 400}
	at := func() (from, to flows) {
		s := c.podmeter(t)
		return s.flows(namespace, w.from.Metadata.Name), s.flows(namespace, w.to.Metadata.Name)
	}
	from, to := at()
	c.traffic(t, namespace, w.from.Metadata.Name, d.to(w.address, w.port)...)
	if w.sent != (row{}) {
		c.awaitFlows(t, namespace, w.from.Metadata.Name, from, flows{w.sent: d.counters(w.address)})
	}
	if w.received != (row{}) {
		c.awaitFlows(t, namespace, w.to.Metadata.Name, to, flows{w.received: d.counters(w.address).mirrored()})
	}

	// How many packets TCP takes is not known before, but both ends see the same.
	from, to = at()
	const request, response = 200_000, 1_000_000
	c.traffic(t, namespace, w.from.Metadata.Name, "tcp", net.JoinHostPort(w.address, w.port), fmt.Sprint(request), fmt.Sprint(response))
	w.sent.protocol, w.received.protocol = "tcp", "tcp"
	await(t, "TCP at both ends", func() string {
		nowFrom, nowTo := at()
		return tcpDiffers(w, nowFrom.since(from), nowTo.since(to), counters{request, 1, response, 1})
	})
}

// tcpDiffers compares what both ends counted with each other and with the payload.
func tcpDiffers(w way, from, to flows, payload counters) string {
	all := fmt.Sprintf("one end %+v, the other %+v", from, to)
	sent, received := from[w.sent], to[w.received].mirrored()
	switch {
	case w.from.Spec.HostNetwork:
		sent = received
	case w.to.Metadata.Name == "":
		received = sent
	}
	switch {
	case !w.from.Spec.HostNetwork && len(from) != 1, w.to.Metadata.Name != "" && len(to) != 1:
		return "not on one row: " + all
	case sent != received:
		return "the ends differ: " + all
	case sent.transmitBytes < payload.transmitBytes || sent.receiveBytes < payload.receiveBytes:
		return "less than the payload: " + all
	case sent.plus(payload, -1.2).transmitBytes > 0 || sent.plus(payload, -1.2).receiveBytes > 0:
		return "far more than the payload: " + all
	}
	return ""
}

// podOf returns the pod of a workload with one.
func (c *cluster) podOf(t *testing.T, namespace, app string) pod {
	t.Helper()
	all := c.allPods(t, namespace, "--selector", "app="+app)
	if len(all) != 1 {
		t.Fatalf("pods of %s: got %d, want 1", app, len(all))
	}
	return all[0]
}

// service returns the addresses of a Service, IPv4 first.
func (c *cluster) service(t *testing.T, namespace, name string) []string {
	t.Helper()
	out := c.kubectl(t, "", "get", "service", name, "--namespace", namespace, "--output", "jsonpath={.spec.clusterIPs[*]}")
	return strings.Fields(string(out))
}

// endpoints returns what the name of a headless Service is resolved to, IPv4 first.
func (c *cluster) endpoints(t *testing.T, namespace, service string) (addresses []string) {
	t.Helper()
	for _, family := range []string{"IPv4", "IPv6"} {
		out := c.kubectl(t, "", "get", "endpointslices", "--namespace", namespace,
			"--selector", "kubernetes.io/service-name="+service,
			"--output", fmt.Sprintf(`jsonpath={.items[?(@.addressType==%q)].endpoints[*].addresses[0]}`, family))
		addresses = append(addresses, string(out))
	}
	return addresses
}
