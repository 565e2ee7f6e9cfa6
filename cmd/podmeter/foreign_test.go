// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/kubetest"
)

// An agent leaves a pod in the node's network to the firewall above its cgroup, and says so
// in its status, its metrics and its log.
func TestAgentLeavesHostPodToForeignProgram(t *testing.T) {
	ktest.Privileged(t)
	server := kubetest.Start(t)
	h := newHost(t)
	makePod(t, server)
	above := ktest.NewCgroup(t)
	cgroup := makeHostPod(t, server, above)
	foreign := ktest.NewForeignProgram(t, ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress)
	foreign.On(t, above, ktest.CgroupOverridable)
	flags := h.flags("--identity", "kubernetes", "--kubeconfig", gateInto(t, h.node, server), "--node-name", "here", "--sockets", "off")
	p := start(t, h.node, nil, flags...)
	status := h.await(t, p, "the pod is left alone", func(s *agent.Status) bool { return len(s.Yielded) > 0 })
	got := status.Yielded[0]
	if got.Programs != "host_pods" || got.Namespace != "ns" || got.Pod != "proxy" || !strings.Contains(got.Foreign, above.Path) {
		t.Errorf("got %+v, want the pod ns/proxy and the program on %s", got, above.Path)
	}
	if slices.ContainsFunc(status.Interfaces, func(i agent.InterfaceStatus) bool { return i.Attachment == "cgroup" }) {
		t.Errorf("got %+v, want no pod metered at its cgroup", status.Interfaces)
	}
	err := cgroup.Do(h.node, func() error {
		client, err := net.Dial("udp4", "198.51.100.2:9")
		if err != nil {
			return err
		}
		defer client.Close()
		_, err = client.Write([]byte("x"))
		return err
	})
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("what the firewall drops: got %v, want EPERM", err)
	}
	for _, want := range []string{`podmeter_yielded_cgroups{programs="host_pods"} 1`, `podmeter_pods{state="host_network"} 1`} {
		if exposition := string(h.scrape(t, "/metrics")); !strings.Contains(exposition, want+"\n") {
			t.Errorf("metrics: got no %s", want)
		}
	}
	p.terminate(t)
}
