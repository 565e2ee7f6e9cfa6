// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/kubetest"
)

// A pod whose owner has a name of a megabyte, which a real API server takes, makes neither
// scrapes nor checkpoints large, and nothing of it gets to a terminal.
func TestPodOfAVileOwner(t *testing.T) {
	ktest.Privileged(t)
	server := kubetest.Start(t)
	h := newHost(t)
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	createNamespace(t, client, "ns")
	createNode(t, client, "here", "")
	createPod(t, client, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "ns", OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "v1", UID: "u", Kind: "<img src=x>\x1b[2J\n", Name: strings.Repeat("n", 1_000_000), Controller: new(true),
		}}},
		Spec: corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Name: "main", Image: "none"}}},
	}, "198.51.100.2")
	kubeconfig := gateInto(t, h.node, server)
	p := start(t, h.node, nil, h.flags("--identity", "kubernetes", "--kubeconfig", kubeconfig, "--node-name", "here")...)
	h.awaitAttached(t, p)
	h.send(t, 55)
	before := h.await(t, p, "its packets are counted", func(s *agent.Status) bool {
		return s.Interfaces[0].Pod == "a" && s.Interfaces[0].Transmit.Packets >= 55
	})
	h.await(t, p, "they are in a checkpoint", func(s *agent.Status) bool { return s.Drain.Count >= before.Drain.Count+3 })

	socket := newClient(h.sock)
	defer socket.close()
	text, err := socket.metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const most = 200_000 // bytes: all but this pod's rows is the agent's own
	if len(text) > most || !bytes.Contains(text, []byte(`workload="nnn`)) {
		t.Errorf("got a scrape of %d bytes, want at most %d and the pod in it", len(text), most)
	}
	if bytes.ContainsAny(text, "\x1b") || bytes.Contains(text, []byte("<img")) {
		t.Error("got escapes or markup in the scrape")
	}
	if !bytes.Contains(text, []byte(`podmeter_identity_bounded_total{bound="text"} `)) {
		t.Error("got no count of it")
	}
	info, err := os.Stat(filepath.Join(h.dir, "state", "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > most {
		t.Errorf("got a checkpoint of %d bytes, want at most %d", info.Size(), most)
	}
	p.terminate(t)
	if got := strings.Count(p.output.String(), "an object is beyond a bound"); got != 1 {
		t.Errorf("got it logged %d times, want once:\n%.4000s", got, p.output.String())
	}
}
