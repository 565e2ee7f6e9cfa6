// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podmeter/podmeter/flows/plain"
)

// create makes an object that the API server is to take.
func (w *wire) create(p *corev1.Pod) {
	w.Helper()
	p.UID, p.Spec.Containers[0].Image = "", "none"
	status := p.Status
	api := w.admin.CoreV1().Pods("ns")
	p, err := api.Create(w.Context(), p, metav1.CreateOptions{})
	if err != nil {
		w.Fatal(err)
	}
	p.Status = status
	if _, err := api.UpdateStatus(w.Context(), p, metav1.UpdateOptions{}); err != nil {
		w.Fatal(err)
	}
}

// wideService is a service as it is told to an API server, of private addresses: others are
// not claimed.
func wideService(name string, addresses, ports int) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
	for i := range addresses {
		s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, fmt.Sprintf("172.20.%d.%d", i>>8, i&255))
	}
	for i := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Port: int32(2*i + 1)})
	}
	return s
}

// What a real API server takes of a tenant is kept within bounds, and does not stall.
func TestHostileObjectsOfRealServer(t *testing.T) {
	w := onWire(t)
	p := hostilePod(0)
	p.Name = "owned"
	p.OwnerReferences[0].Name = strings.Repeat("n", 1_000_000)
	w.create(p)
	services := w.admin.CoreV1().Services("ns")
	for _, s := range []*corev1.Service{wideService("square", 300, 300), wideService("large", 2000, 3000), wideService("larger", 1500, 3000)} {
		if _, err := services.Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.run("victim", "10.0.7.7")
	w.await("10.0.7.7", "victim")
	w.until(func() bool { return w.cache.Counts()["service"] == 4 }, func() { t.Errorf("got %v", w.cache.Counts()) }) // with kubernetes
	owner := w.cache.Owner(query(podNumber(0).String(), 0, 0))
	if owner.Pod != "owned" || len(owner.Name) != plain.NameLimit || !plain.Is(owner.Name, plain.NameLimit) || !plain.Is(owner.WorkloadType, plain.LabelLimit) {
		t.Errorf("got %d bytes of owner, %q", len(owner.Name), owner.WorkloadType)
	}

	square, err := services.Get(t.Context(), "square", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	claims := func() (all, ended int) {
		w.cache.mu.RLock()
		defer w.cache.mu.RUnlock()
		return w.cache.claims.count(), len(w.cache.claims.ended)
	}
	all, ended := claims()
	if most := 3*maxServiceAddresses + 20; all > most {
		t.Errorf("got %d claims, want at most %d", all, most)
	}
	square.Labels = map[string]string{"a": "b"}
	if _, err := services.Update(t.Context(), square, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.run("later", "10.0.7.8")
	w.await("10.0.7.8", "later")
	if now, nowEnded := claims(); now > all+2 || nowEnded != ended {
		t.Errorf("after a change of a label: got %d claims and %d ended, want %d and %d", now, nowEnded, all+1, ended)
	}
	if got := w.cache.Bounded(); got["addresses"] == 0 || got["ports"] == 0 || got["text"] == 0 {
		t.Errorf("got %v counted", got)
	}
}

// Pods without a node are not even sent.
func TestUnschedulablePodsOfRealServer(t *testing.T) {
	w := onWire(t)
	w.run("a", "10.0.0.1")
	w.await("10.0.0.1", "a")
	before := w.gate.Received()
	const pods = 20
	for i := range pods {
		p := hostilePod(i)
		p.UID, p.Spec.NodeName, p.Spec.Containers[0].Image = "", "", "none"
		if _, err := w.admin.CoreV1().Pods("ns").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.run("b", "10.0.0.2")
	w.await("10.0.0.2", "b")
	if got := w.gate.Received() - before; got > hostileBytes {
		t.Errorf("got %d bytes for %d pods without a node, want less than one has", got, pods)
	}
	if got := w.cache.Counts()["pod"]; got != 2 {
		t.Errorf("got %d pods, want 2", got)
	}
	// One that gets a node comes then.
	late := running("late", metav1.Now(), "10.0.0.3")
	late.UID, late.Spec.NodeName, late.Spec.Containers[0].Image = "", "", "none"
	status := late.Status
	if _, err := w.admin.CoreV1().Pods("ns").Create(t.Context(), late, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "late"}, Target: corev1.ObjectReference{Kind: "Node", Name: "here"}}
	if err := w.admin.CoreV1().Pods("ns").Bind(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	late, err := w.admin.CoreV1().Pods("ns").Get(t.Context(), "late", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	late.Status = status
	if _, err := w.admin.CoreV1().Pods("ns").UpdateStatus(t.Context(), late, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.await("10.0.0.3", "late")
}
