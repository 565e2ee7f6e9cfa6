// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/kubetest"
)

// An agent that starts while the API server is away meters all the same, and its
// interfaces get their pods once the server is there.
func TestAgentWithoutAPIServer(t *testing.T) {
	ktest.Privileged(t)
	server := kubetest.Start(t)
	h := newHost(t)
	makePod(t, server)
	server.StopAPI()

	var gate *kubetest.Gate
	err := h.node.Do(func() (err error) {
		gate, err = kubetest.NewGate(server.Address) // in the node, to the outside
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gate.Close)
	kubeconfig, err := server.KubeconfigVia(gate.Address)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, h.node, nil, h.flags("--identity", "kubernetes", "--kubeconfig", kubeconfig, "--node-name", "here")...)
	h.await(t, p, "the API server is missed", func(s *agent.Status) bool {
		return s.Identity.Problem != "" && !s.Identity.Synced
	})
	if err := server.StartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	status := h.awaitAttached(t, p)
	if got := status.Interfaces[0]; got.Namespace != "ns" || got.Pod != "a" {
		t.Errorf("got pod %s/%s behind the interface, want ns/a", got.Namespace, got.Pod)
	}
	p.terminate(t)
}

// makePod makes the node here and the pod ns/a, which has the address of the host's.
func makePod(t *testing.T, server *kubetest.Server) {
	t.Helper()
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	api := client.CoreV1()
	create := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	create(api.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, metav1.CreateOptions{}))
	create(api.Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}, metav1.CreateOptions{}))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"},
		Spec: corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Name: "main", Image: "none"}}}}
	pod, err = api.Pods("ns").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "198.51.100.2", PodIPs: []corev1.PodIP{{IP: "198.51.100.2"}}, StartTime: new(metav1.Now())}
	create(api.Pods("ns").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}))
}
