// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"net"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
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
	external := row{peerKind: "external", locality: "external", protocol: "udp"}

	for n, family := range []string{"IPv4", "IPv6"} {
		ways := []way{
			{"ClusterIP", cluster[n], "7", client, byService, echo, fromClient},
			{"pod IP", echo.Status.PodIPs[n].IP, port, client, toEcho, echo, fromClient},
			{"headless Service", headless[n], port, client, toStore, store, fromClient},
			{"from the node to a pod IP", echo.Status.PodIPs[n].IP, port, host, row{}, echo, fromNode},
			{"from the node to a ClusterIP", cluster[n], "7", host, row{}, echo, fromNode},
			{"outside", outside[n], port, client, external, pod{}, row{}},
		}
		for _, w := range ways {
			t.Run(family+" "+w.name, func(t *testing.T) { c.walk(t, namespace, w) })
		}
	}
	c.checkIdentities(t, namespace, 3)
}

// way is one from a pod to another, and how the flows are called at each end. An end
// without a row is not looked at: it is not metered, or in the node's network.
type way struct {
	name, address, port string
	from                pod
	sent                row
	to                  pod
	received            row
}

// walk sends datagrams and a TCP request along the way.
func (c *cluster) walk(t *testing.T, namespace string, w way) {
	s, name, address := c.podmeter(t), w.from.Metadata.Name, net.JoinHostPort(w.address, w.port)
	d, r := datagrams{25, 400}, request{200_000, 1_000_000}
	from, to := s.flows(namespace, name), s.flows(namespace, w.to.Metadata.Name)
	c.traffic(t, namespace, name, d.to(address)...)
	c.traffic(t, namespace, name, r.to(address)...)
	ktest.AwaitWithin(t, patience, "the flows", func() string {
		s := c.podmeter(t)
		return w.differs(d, r, s.flows(namespace, name).since(from), s.flows(namespace, w.to.Metadata.Name).since(to))
	})
}

// differs compares what each end counted with what was sent. How many packets TCP
// takes is not known before, but both ends see the same.
func (w way) differs(d datagrams, r request, from, to flows) string {
	overTCP := func(r row) row {
		r.protocol = "tcp"
		return r
	}
	tcp := from[overTCP(w.sent)]
	if w.sent == (row{}) {
		tcp = to[overTCP(w.received)].mirrored()
	}
	wantFrom, wantTo := from, flows{}
	if w.sent != (row{}) {
		wantFrom = flows{w.sent: d.counters(w.address), overTCP(w.sent): tcp}
	}
	if w.received != (row{}) {
		wantTo = flows{w.received: d.counters(w.address).mirrored(), overTCP(w.received): tcp.mirrored()}
	}
	if !maps.Equal(from, wantFrom) || !maps.Equal(to, wantTo) {
		return fmt.Sprintf("one end got %+v, want %+v; the other got %+v, want %+v", from, wantFrom, to, wantTo)
	}
	if !r.carriedBy(tcp) {
		return fmt.Sprintf("%+v is no %+v with headers", tcp, r)
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
