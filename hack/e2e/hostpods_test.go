// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
)

// A pod in the node's own network has series of its own: what its sockets send and
// receive, from the IP header on, to the byte. What other processes of the node do, to the
// same peers, is not its.
func TestHostPods(t *testing.T) {
	c := inCluster(t)
	const namespace, servers = "e2e-host", "9100"
	c.world(t, namespace)
	internet(t)
	host, echo, client := c.podOf(t, namespace, "host"), c.podOf(t, namespace, "echo"), c.podOf(t, namespace, "client")
	serving, stop := context.WithCancel(t.Context())
	defer stop()
	in := container(t, namespace, host.Metadata.Name)
	serve := []string{"serve"}
	for _, address := range host.Status.PodIPs {
		serve = append(serve, net.JoinHostPort(address.IP, servers))
	}
	go func() { _, _ = c.trafficIn(serving, in, serve...) }()
	ktest.AwaitWithin(t, patience, "a server in the node's network", func() string {
		if output(t, "ss", "-Hltn", "sport = :"+servers) == "" {
			return "nobody listens"
		}
		return ""
	})

	pod := func(name string) row { return row{"pod", namespace, name, "deployment", "", "same_node", "udp"} }
	external := row{peerKind: "external", locality: "external", protocol: "udp"}
	for n, family := range []string{"IPv4", "IPv6"} {
		toEcho := net.JoinHostPort(echo.Status.PodIPs[n].IP, port)
		t.Run(family+" to a pod", func(t *testing.T) { c.talkOfHost(t, namespace, host, host, toEcho, pod("echo")) })
		t.Run(family+" outside", func(t *testing.T) {
			c.talkOfHost(t, namespace, host, host, net.JoinHostPort(outside[n], port), external)
		})
		t.Run(family+" from a pod", func(t *testing.T) {
			c.talkOfHost(t, namespace, host, client, net.JoinHostPort(host.Status.PodIPs[n].IP, servers), pod("client"))
		})
		t.Run(family+" of another process", func(t *testing.T) {
			before := c.podmeter(t).family("pod", namespace, host.Metadata.Name)
			d := datagrams{20, 300}
			from := c.podmeter(t).flows(namespace, echo.Metadata.Name)
			output(t, os.Getenv("PODMETER_E2E_TRAFFIC"), d.to(toEcho)...)
			node := row{peerKind: "node", peer: c.node, locality: "same_node", protocol: "udp"}
			c.awaitFlows(t, namespace, echo.Metadata.Name, from, flows{node: d.counters(echo.Status.PodIPs[n].IP).mirrored()})
			if now := c.podmeter(t).family("pod", namespace, host.Metadata.Name); now != before {
				t.Errorf("got %v of the pod in the node's network, want %v as before", now, before)
			}
		})
	}
	t.Run("while agents come and go", func(t *testing.T) {
		defer c.neverDown(t)()
		before := c.podmeter(t).flows(namespace, host.Metadata.Name)
		d, address := datagrams{200, 1000}, echo.Status.PodIPs[0].IP
		c.killAgent(t)
		c.traffic(t, namespace, host.Metadata.Name, d.to(net.JoinHostPort(address, port))...)
		sent := c.background(t, namespace, host.Metadata.Name, d.to(net.JoinHostPort(address, port))...)
		c.kubectl(t, "", "delete", "pod", "--namespace", agentNamespace, "--selector", agents)
		sent()
		c.rolledOut(t, agentNamespace, "daemonset/podmeter")
		twice := d.inCgroup(address).plus(d.inCgroup(address), 1)
		c.awaitFlows(t, namespace, host.Metadata.Name, before, flows{pod("echo"): twice})
	})
	c.checkIdentities(t, namespace, 4)
}

// talkOfHost sends datagrams and a TCP request from a pod, and wants all of it on one row
// of the pod in the node's network.
func (c *cluster) talkOfHost(t *testing.T, namespace string, host, from pod, address string, udp row) {
	t.Helper()
	d, r := datagrams{25, 400}, request{200_000, 1_000_000}
	s := c.podmeter(t)
	before, opened := s.flows(namespace, host.Metadata.Name), s.opened(namespace, host.Metadata.Name)
	c.traffic(t, namespace, from.Metadata.Name, d.to(address)...)
	c.traffic(t, namespace, from.Metadata.Name, r.to(address)...)
	to, _, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	wantUDP, tcp := d.inCgroup(to), udp
	tcp.protocol = "tcp"
	ktest.AwaitWithin(t, patience, "the flows of "+host.Metadata.Name, func() string {
		s := c.podmeter(t)
		grown := s.flows(namespace, host.Metadata.Name).since(before)
		if want := (flows{udp: wantUDP, tcp: grown[tcp]}); !maps.Equal(grown, want) {
			return fmt.Sprintf("got %+v, want %+v", grown, want)
		}
		carried := grown[tcp]
		if from.Metadata.Name != host.Metadata.Name {
			carried = carried.mirrored()
		}
		if !r.carriedBy(carried) {
			return fmt.Sprintf("%+v is no %+v with headers", carried, r)
		}
		if more := s.opened(namespace, host.Metadata.Name) - opened; more != 1 {
			return fmt.Sprintf("got %v connections opened, want 1", more)
		}
		return ""
	})
}

// inCgroup returns what they are at the cgroup of a pod in the node's network: there is no
// Ethernet header.
func (d datagrams) inCgroup(address string) counters {
	const header = 14
	c := d.counters(address)
	c.transmitBytes -= header * c.transmitPackets
	c.receiveBytes -= header * c.receivePackets
	return c
}
