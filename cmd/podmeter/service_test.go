// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// newServiceHost is a host whose node translates a Service, and the file that names
// its pods, two of them as this node's.
func newServiceHost(t *testing.T) (*ktest.ServiceNode, *host, string) {
	t.Helper()
	s := ktest.NewServiceNode(t)
	h := hostOf(t, s.Node, s.Client)
	var content strings.Builder
	content.WriteString("node: {name: n}\nservices:\n" +
		"- {namespace: shop, name: web, ips: [" + ktest.Service4 + ", \"" + ktest.Service6 + "\"]}\npods:\n")
	for _, pod := range []struct{ name, where, ipv4, ipv6 string }{
		{"client", "node: n, interface: veth-client", ktest.Client4, ktest.Client6},
		{"blue", "node: n, interface: veth-blue", ktest.Blue4, ktest.Blue6},
		{"green", "node: far", ktest.Green4, ktest.Green6}, // as far as the agent knows
	} {
		fmt.Fprintf(&content, "- {namespace: shop, name: %s-0, %s, ips: [%s, %q],\n  workload: {type: deployment, name: %s}}\n",
			pod.name, pod.where, pod.ipv4, pod.ipv6, pod.name)
	}
	file := filepath.Join(h.dir, "pods.yaml")
	if err := os.WriteFile(file, []byte(content.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, h, file
}

// peersOf returns the packets of a pod's TCP and UDP flows, by protocol and peer.
func (h *host) peersOf(t *testing.T, pod, direction string) map[string]float64 {
	t.Helper()
	client := newClient(h.sock)
	defer client.close()
	text, err := client.metrics(t.Context())
	if err != nil {
		t.Fatalf("metrics: %v", err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("parse metrics: %v", err)
	}
	peers := make(map[string]float64)
	for _, metric := range families["podmeter_flow_"+direction+"_packets_total"].GetMetric() {
		labels := make(map[string]string)
		for _, pair := range metric.GetLabel() {
			labels[pair.GetName()] = pair.GetValue()
		}
		if p := labels["protocol"]; labels["pod"] == pod && (p == "tcp" || p == "udp") {
			key := strings.Join([]string{p, labels["peer_kind"], labels["peer_namespace"], labels["peer"], labels["service"], labels["locality"]}, " ")
			peers[key] += metric.GetCounter().GetValue()
		}
	}
	return peers
}

func (h *host) awaitPods(t *testing.T, p *process) {
	t.Helper()
	h.await(t, p, "both pods' interfaces are attached and bound", func(s *agent.Status) bool {
		bound := 0
		for _, i := range s.Interfaces {
			if i.State == "attached" && i.Pod != "" {
				bound++
			}
		}
		return bound == 2
	})
}

// A pod that talks to a Service has the backend as its peer, in both directions, and
// the Service's name on it; to the backend the client is a pod like any.
func TestServiceBackendEndToEnd(t *testing.T) {
	t.Parallel()
	s, h, file := newServiceHost(t)
	p := start(t, h.node, h.least(""), h.flags("--static-file", file)...)
	h.awaitPods(t, p)
	const datagrams = 7
	for _, service := range []string{ktest.Service4, "[" + ktest.Service6 + "]"} {
		for range datagrams {
			s.Talk(t, "udp", service+":80", 0, 100)
			s.Talk(t, "udp", service+":81", 0, 100)
		}
		s.Talk(t, "tcp", service+":80", 0, 10_000)
	}
	want := map[string]float64{
		"udp pod shop blue web same_node": 2 * datagrams, "udp pod shop green web unknown": 2 * datagrams,
	}
	for _, direction := range []string{"transmit", "receive"} {
		got := make(map[string]float64)
		h.await(t, p, "all is drained", func(*agent.Status) bool {
			got = h.peersOf(t, "client-0", direction)
			for peer, packets := range want {
				if got[peer] < packets {
					return false
				}
			}
			return got["tcp pod shop blue web same_node"] > 0
		})
		delete(got, "tcp pod shop blue web same_node") // so many packets as TCP likes
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("client, %s (-want +got):\n%s", direction, diff)
		}
	}
	back := h.peersOf(t, "blue-0", "transmit")
	delete(back, "tcp pod shop client  same_node")
	if diff := cmp.Diff(map[string]float64{"udp pod shop client  same_node": 2 * datagrams}, back); diff != "" {
		t.Errorf("backend (-want +got):\n%s", diff)
	}
	// A connection of each datagram and two of TCP; one that two epochs saw is asked for twice.
	h.await(t, p, fmt.Sprintf("%d lookups that found something", 4*datagrams+2), func(*agent.Status) bool {
		return h.value(t, "podmeter_service_lookups_total", "result", "found") >= 4*datagrams+2
	})
	for _, result := range []string{"missing", "skipped", "error"} {
		if got := h.value(t, "podmeter_service_lookups_total", "result", result); got != 0 {
			t.Errorf("lookups, %s: got %v, want none", result, got)
		}
	}
	p.terminate(t)
}

// Where backends are not looked up the Service is the peer.
func TestServiceTranslationOff(t *testing.T) {
	t.Parallel()
	s, h, file := newServiceHost(t)
	p := start(t, h.node, nil, h.flags("--static-file", file, "--service-translation", "off")...)
	h.awaitPods(t, p)
	s.Talk(t, "udp", ktest.Service4+":80", 0, 100)
	want := map[string]float64{"udp service shop web web unknown": 1}
	var got map[string]float64
	h.await(t, p, "all is drained", func(*agent.Status) bool {
		got = h.peersOf(t, "client-0", "transmit")
		return len(got) > 0
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
	p.terminate(t)
}
