// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/podmeter/podmeter/internal/kubeapi"
	"github.com/podmeter/podmeter/internal/kubetest"
)

// wire is a source that watches a real API server through a gate.
type wire struct {
	*testing.T
	server *kubetest.Server
	gate   *kubetest.Gate
	admin  kubernetes.Interface // not through the gate
	client *kubeapi.API         // the source's
	cache  *Cache
	source *Kubernetes
}

// onWire starts all of it, with a namespace ns and a node of this name.
func onWire(t *testing.T) *wire {
	w := &wire{T: t, server: kubetest.Start(t)}
	var err error
	if w.gate, err = kubetest.NewGate(w.server.Address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.gate.Close)
	if w.admin, err = w.server.Client(); err != nil {
		t.Fatal(err)
	}
	w.make("ns", "here")
	kubeconfig, err := w.server.KubeconfigVia(w.gate.Address)
	if err != nil {
		t.Fatal(err)
	}
	if w.client, err = NewClient(kubeconfig, "podmeter/test"); err != nil {
		t.Fatal(err)
	}
	w.cache = NewCache(CacheOptions{Node: "here"})
	w.source, err = NewKubernetes(w.cache, KubernetesOptions{Client: w.client, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.source.Run(ctx) })
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)
	return w
}

func (w *wire) make(namespace, node string) {
	w.Helper()
	_, err := w.admin.CoreV1().Namespaces().Create(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		w.Fatal(err)
	}
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, Labels: map[string]string{corev1.LabelTopologyZone: "z1"}}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
	if _, err := w.admin.CoreV1().Nodes().Create(w.Context(), n, metav1.CreateOptions{}); err != nil {
		w.Fatal(err)
	}
}

// run makes a pod that runs with an address.
func (w *wire) run(name, ip string) {
	w.Helper()
	w.create(running(name, metav1.Now(), ip))
}

func (w *wire) remove(name string) {
	w.Helper()
	err := w.admin.CoreV1().Pods("ns").Delete(w.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	if err != nil {
		w.Fatal(err)
	}
}

// await waits until the owner of an address is the one.
func (w *wire) await(address, want string) {
	w.Helper()
	w.until(func() bool { return w.owner(address) == want }, func() {
		w.Errorf("%s: got %s, want %s; status %+v", address, w.owner(address), want, w.source.Status())
	})
}

func (w *wire) owner(address string) string { return says(w.cache.Owner(query(address, 0, 0))) }

// until waits for a condition, or says what it lacks. Informers wait up to 30 s,
// and as much again, before they try again.
func (w *wire) until(condition func() bool, lacks func()) {
	w.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			lacks()
			w.FailNow()
		}
	}
}

func (w *wire) startAPI() {
	w.Helper()
	if err := w.server.StartAPI(w.Context()); err != nil {
		w.Fatal(err)
	}
}

func TestWireOfRealServer(t *testing.T) {
	w := onWire(t)
	w.run("a", "10.0.0.1")
	web := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.7.7", Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := w.admin.CoreV1().Services("ns").Create(t.Context(), web, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.await("10.0.0.1", "a")
	w.await("10.96.7.7", "service:web")
	w.await("192.0.2.1", "node:here")
	if _, zone := w.cache.Here(); zone != "z1" {
		t.Errorf("got zone %q, want z1", zone)
	}
	if s := w.source.Status(); !s.Synced || s.Problem != "" {
		t.Errorf("got %+v, want synced without a problem", s)
	}

	var got string
	if err := w.client.Core.Get().Resource("pods").Do(t.Context()).ContentType(&got).Error(); err != nil {
		t.Fatal(err)
	}
	if got != runtime.ContentTypeProtobuf {
		t.Errorf("got pods in %s, want protobuf", got)
	}

	w.server.StopAPI()
	w.startAPI()
	w.run("b", "10.0.0.2")
	w.await("10.0.0.2", "b")

	// The server that is asked to go on has not seen what has happened since: the
	// version is too old for it, and all is listed again.
	w.gate.Shut()
	w.remove("a")
	w.run("c", "10.0.0.3")
	w.server.StopAPI()
	w.startAPI()
	w.run("d", "10.0.0.4")
	w.gate.Open()
	w.await("10.0.0.4", "d")
	w.await("10.0.0.3", "c")
	w.await("10.0.0.1", "private")
	w.await("10.0.0.2", "b")
}

func TestOutageOfRealServer(t *testing.T) {
	w := onWire(t)
	w.run("a", "10.0.0.1")
	w.await("10.0.0.1", "a")
	w.server.StopAPI()
	away := time.Now()
	w.until(func() bool { return time.Since(w.source.Status().Updated) > 5*time.Second }, func() {
		t.Errorf("got an age of %v while the API server was away", time.Since(w.source.Status().Updated))
	})
	// What was under way when it ended may have come a little later.
	if updated := w.source.Status().Updated; updated.After(away.Add(time.Second)) {
		t.Errorf("got contact at %v, and the API server went at %v", updated, away)
	}
	if got := w.owner("10.0.0.1"); got != "a" {
		t.Errorf("while the API server is away: got %s, want a", got)
	}
	// Watches come back while it starts, and may then hear nothing for minutes.
	back := time.Now()
	w.startAPI()
	w.until(func() bool { return w.source.Status().Updated.After(back) }, func() {
		t.Errorf("got %+v, want it updated after %v", w.source.Status(), back)
	})
}
