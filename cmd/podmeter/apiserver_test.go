// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/kubetest"
)

// An agent that starts while the API server is away meters all the same, and its
// interfaces get their pods once the server is there.
func TestAgentWithoutAPIServer(t *testing.T) {
	t.Parallel()
	ktest.Privileged(t)
	server := kubetest.Start(t)
	h := newHost(t)
	makePod(t, server)
	server.StopAPI()
	kubeconfig := gateInto(t, h.node, server)
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
	createNamespace(t, client, "ns")
	createNode(t, client, "here", "")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "ns"},
		Spec: corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Name: "main", Image: "none"}}}}
	createPod(t, client, pod, "198.51.100.2")
}

// makeHostPod makes the pod ns/proxy in the network of the node that makePod makes, and returns
// its cgroup, which is below another.
func makeHostPod(t *testing.T, server *kubetest.Server, above *ktest.Cgroup) *ktest.Cgroup {
	t.Helper()
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "proxy", Namespace: "ns"}, Spec: corev1.PodSpec{
		NodeName: "here", HostNetwork: true, Containers: []corev1.Container{{Name: "main", Image: "none"}}}}
	return above.Child(t, "kubepods").Child(t, "pod"+string(createPod(t, client, pod, "192.0.2.1")))
}

func createNamespace(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// createNode makes a node, in a zone unless that is empty.
func createNode(t *testing.T, client kubernetes.Interface, name, zone string) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if zone != "" {
		node.Labels = map[string]string{corev1.LabelTopologyZone: zone}
	}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// createPod makes a pod that runs, with an address and with the containers of its status,
// and returns its UID.
func createPod(t *testing.T, client kubernetes.Interface, pod *corev1.Pod, address string, containers ...corev1.ContainerStatus) types.UID {
	t.Helper()
	pods := client.CoreV1().Pods(pod.Namespace)
	made, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		StartTime: new(metav1.Now()), ContainerStatuses: containers}
	if _, err := pods.UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	return made.UID
}

// gateInto opens a way from a namespace to the API server, and returns the kubeconfig file
// that goes by it.
func gateInto(t *testing.T, in *ktest.Namespace, server *kubetest.Server) (kubeconfig string) {
	t.Helper()
	var gate *kubetest.Gate
	err := in.Do(func() (err error) {
		gate, err = kubetest.NewGate(server.Address) // in the namespace, to the outside
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gate.Close)
	if kubeconfig, err = server.KubeconfigVia(gate.Address); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}
