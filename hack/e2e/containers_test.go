// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
)

// use is what a container sends and receives by a protocol.
type use struct{ container, protocol string }

// uses is what of a pod is on each of its containers, of what is exchanged with pods.
func (s series) uses(namespace, pod string) map[use]counters {
	found := make(map[use]counters)
	for _, what := range []string{"transmit_bytes", "transmit_packets", "receive_bytes", "receive_packets"} {
		for _, m := range s["podmeter_flow_"+what+"_total"].GetMetric() {
			if label := labels(m); has(m, []string{"namespace", namespace, "pod", pod, "peer_kind", "pod"}) && label["protocol"] != "icmpv6" {
				u := use{label["container"], label["protocol"]}
				c := found[u]
				*c.field(what) += m.GetCounter().GetValue()
				found[u] = c
			}
		}
	}
	return found
}

// opened is how many TCP connections a pod has opened or accepted.
func (s series) opened(namespace, pod string) float64 {
	return s.sum("podmeter_tcp_connections_opened_total", "namespace", namespace, "pod", pod)
}

// usesSince returns by what the containers' uses grew.
func usesSince(now, before map[use]counters) map[use]counters {
	for u, was := range before {
		if now[u] = now[u].plus(was, -1); now[u] == (counters{}) {
			delete(now, u)
		}
	}
	return now
}

// Of a pod with two containers on one address, each byte is on the container that sent
// or received it: of servers and clients, of TCP and UDP, of both families, and of a
// container that was started again.
func TestContainers(t *testing.T) {
	c := inCluster(t)
	const namespace = "e2e-containers"
	c.namespace(t, namespace)
	c.apply(t, namespace, "containers.yaml")
	c.rolledOut(t, namespace, "deployment/duo")
	c.rolledOut(t, namespace, "deployment/other")
	duo, other := c.podOf(t, namespace, "duo"), c.podOf(t, namespace, "other")
	for n, family := range []string{"IPv4", "IPv6"} {
		ip, peer := duo.Status.PodIPs[n].IP, other.Status.PodIPs[n].IP
		for m, name := range []string{"front", "back"} {
			at, away := net.JoinHostPort(ip, fmt.Sprint(9000+m)), net.JoinHostPort(peer, port)
			t.Run(family+" to "+name, func(t *testing.T) {
				c.talkIn(t, namespace, other.Metadata.Name, "traffic", at, duo.Metadata.Name, name, false)
			})
			t.Run(family+" from "+name, func(t *testing.T) {
				c.talkIn(t, namespace, duo.Metadata.Name, name, away, duo.Metadata.Name, name, true)
			})
		}
	}
	t.Run("from front, started again", func(t *testing.T) {
		before := containerOf(t, namespace, duo.Metadata.Name, "front")
		ctr(t, "tasks", "kill", "--signal", "SIGKILL", before)
		ktest.AwaitWithin(t, patience, "another container", func() string {
			if now := containerOf(t, namespace, duo.Metadata.Name, "front"); now == before {
				return "it is still " + now
			}
			return ""
		})
		c.rolledOut(t, namespace, "deployment/duo")
		away := net.JoinHostPort(other.Status.PodIPs[0].IP, port)
		c.talkIn(t, namespace, duo.Metadata.Name, "front", away, duo.Metadata.Name, "front", true)
		at := net.JoinHostPort(duo.Status.PodIPs[0].IP, "9000")
		c.talkIn(t, namespace, other.Metadata.Name, "traffic", at, duo.Metadata.Name, "front", false)
	})
	t.Run("to a port of both, while an agent is killed", func(t *testing.T) {
		c.talkToBoth(t, namespace, other, duo, net.JoinHostPort(duo.Status.PodIPs[0].IP, "9002"))
	})
	c.checkIdentities(t, namespace, 2)
	out := c.kubectl(t, "", "exec", "--namespace", agentNamespace, "daemonset/podmeter", "--", "/podmeter", "status")
	for _, line := range []string{`9000 +tcp +front +traffic`, `9000 +udp +front +traffic`, `9001 +tcp +back +traffic`, `9001 +udp +back +traffic`} {
		if !regexp.MustCompile(namespace + `/duo-\S+ +\[::\]:` + line).Match(out) {
			t.Errorf("podmeter status: got no %s in:\n%s", line, out)
		}
	}
}

// talkIn sends datagrams and a TCP request from a container, and wants that all of it,
// and nothing else, is on one container of the metered pod.
func (c *cluster) talkIn(t *testing.T, namespace, pod, container, address, metered, name string, sends bool) {
	t.Helper()
	d, r := datagrams{25, 400}, request{200_000, 1_000_000}
	ip, _, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	before := c.podmeter(t).uses(namespace, metered)
	in := containerOf(t, namespace, pod, container)
	for _, args := range [][]string{d.to(address), r.to(address)} {
		if out, err := c.trafficIn(t.Context(), in, args...); err != nil {
			t.Fatalf("traffic %v: %v: %s", args, err, out)
		}
	}
	ktest.AwaitWithin(t, patience, "the bytes of "+name, func() string {
		grown := usesSince(c.podmeter(t).uses(namespace, metered), before)
		wantUDP, tcp := d.counters(ip), grown[use{name, "tcp"}]
		if !sends {
			wantUDP, tcp = wantUDP.mirrored(), tcp.mirrored()
		}
		if want := (map[use]counters{{name, "udp"}: wantUDP, {name, "tcp"}: grown[use{name, "tcp"}]}); !maps.Equal(grown, want) {
			return fmt.Sprintf("got %+v, want %+v", grown, want)
		}
		if !r.carriedBy(tcp) {
			return fmt.Sprintf("%+v is no %+v with headers", tcp, r)
		}
		return ""
	})
}

// talkToBoth sends TCP requests to a port that two containers listen on: each is on the
// one that took it, and nothing on none.
func (c *cluster) talkToBoth(t *testing.T, namespace string, from, to pod, address string) {
	t.Helper()
	const requests = 20
	one := request{20_000, 100_000}
	s := c.podmeter(t)
	before, opened := s.uses(namespace, to.Metadata.Name), s.opened(namespace, to.Metadata.Name)
	for n := range requests {
		if n == requests/2 {
			c.killAgent(t)
		}
		c.traffic(t, namespace, from.Metadata.Name, one.to(address)...)
	}
	ktest.AwaitWithin(t, patience, "the bytes of both", func() string {
		s := c.podmeter(t)
		grown, more := usesSince(s.uses(namespace, to.Metadata.Name), before), s.opened(namespace, to.Metadata.Name)-opened
		front, back := grown[use{"front", "tcp"}], grown[use{"back", "tcp"}]
		all := request{requests * one.sent, requests * one.wanted}
		if len(grown) != 2 || !all.carriedBy(front.plus(back, 1).mirrored()) {
			return fmt.Sprintf("got %+v, want %+v in both together", grown, all)
		}
		if more != requests {
			return fmt.Sprintf("got %v connections opened, want %d", more, requests)
		}
		return ""
	})
}
