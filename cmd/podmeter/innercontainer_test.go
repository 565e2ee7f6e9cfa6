// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/kubetest"
)

// The containers of an engine in a privileged pod are in cgroups beside the pod's: their bytes
// are the pod's as ever, and what happens to their connections is counted as of no pod.
func TestContainersOfAnEngineInAPod(t *testing.T) {
	effort.Long(t, "an API server starts")
	t.Parallel()
	ktest.Privileged(t)
	server := kubetest.Start(t)
	h := newHost(t)
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	createNamespace(t, client, "ns")
	createNode(t, client, "here", "")
	id := strings.Repeat("0123456789abcdef", 4)
	uid := createPod(t, client, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "runner", Namespace: "ns"}, Spec: corev1.PodSpec{
		NodeName: "here", Containers: []corev1.Container{{Name: "dind", Image: "none"}}}}, "198.51.100.2",
		corev1.ContainerStatus{Name: "dind", ContainerID: "containerd://" + id})
	root := ktest.NewCgroup(t)
	pods := root.Child(t, "kubepods")
	own := pods.Child(t, "pod"+string(uid)).Child(t, id)
	inner := root.Child(t, "docker").Child(t, strings.Repeat("f", 64))
	swallowAt(t, pods.Child(t, "pod00000000-0000-4000-8000-000000000001"), h.node) // whose end is a pod's
	p := start(t, h.node, nil, h.flags("--identity", "kubernetes", "--kubeconfig", gateInto(t, h.node, server), "--node-name", "here",
		"--sockets", "on")...)
	h.awaitAttached(t, p)

	const bytes = 100_000
	sent := func() float64 {
		return h.value(t, "podmeter_flow_transmit_bytes_total", "container", "dind")
	}
	opened := func() float64 { return h.value(t, "podmeter_tcp_connections_opened_total", "pod", "runner") }
	foreign := func() float64 { return h.value(t, "podmeter_drained_connections_total", "result", "no_pod") }

	before := foreign() // of other processes of this machine
	h.talk(t, inner, bytes)
	h.await(t, p, "the inner container's bytes", func(*agent.Status) bool { return sent() >= bytes && foreign() > before })
	h.talk(t, own, bytes)
	h.await(t, p, "the pod's own bytes and connection", func(*agent.Status) bool { return sent() >= 2*bytes && opened() > 0 })
	drains := h.await(t, p, "a status", func(*agent.Status) bool { return true }).Drain.Count
	h.await(t, p, "what is known by now", func(s *agent.Status) bool { return s.Drain.Count > drains+2 })
	if got := opened(); got != 1 {
		t.Errorf("got %v connections on the pod, want its own alone", got)
	}
	p.terminate(t)
}

// talk sends bytes from the pod's network by a new connection of a cgroup, until the other end has
// read all.
func (h *host) talk(t *testing.T, in *ktest.Cgroup, bytes int) {
	t.Helper()
	err := in.Do(h.pod, func() error {
		conn, err := net.Dial("tcp4", "198.51.100.1:8090")
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err = conn.Write(make([]byte, bytes)); err != nil {
			return err
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, conn)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
