// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
)

// vile is a text that an API server takes where it checks nothing.
var vile = "<img src=x>\x1b[2J\n\t\u202e\xff" + strings.Repeat("a", 10_000)

// many returns a number of addresses.
func many(n int) (all []string) {
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}).String())
	}
	return all
}

// vilePod has more of everything than is kept.
func vilePod() *corev1.Pod {
	p := running(vile, metav1.NewTime(start), many(3000)...)
	p.Namespace, p.UID, p.Spec.NodeName = vile, types.UID(vile), vile
	p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: vile, "k8s.v1.cni.cncf.io/network-status": vile}
	p.Labels = map[string]string{"pod-template-hash": vile}
	p.OwnerReferences = []metav1.OwnerReference{{Kind: vile, Name: vile, Controller: new(true)}}
	p.Spec.Containers[0].Name = vile
	for i := range 2000 {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses,
			corev1.ContainerStatus{Name: vile[i:], ContainerID: "x://" + vile[i:]})
	}
	return p
}

func vileService() *corev1.Service {
	addresses := many(3000)
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: vile, Name: vile, UID: types.UID(vile)}}
	s.Spec.ClusterIPs, s.Spec.ExternalIPs = addresses, addresses
	for i := range 3000 {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: int32(2*i + 1)})
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: addresses[i]})
	}
	return s
}

func vileNode() *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: vile, Labels: map[string]string{corev1.LabelTopologyZone: vile}}}
	for i, a := range many(3000) {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Address: a})
		n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))
	}
	return n
}

// strings calls each with every string that a value holds.
func stringsOf(v reflect.Value, each func(path, text string), path string) {
	switch v.Kind() {
	case reflect.String:
		each(path, v.String())
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			stringsOf(v.Elem(), each, path)
		}
	case reflect.Struct:
		if v.Type().PkgPath() == "net/netip" || v.Type().PkgPath() == "time" {
			return
		}
		for i := range v.NumField() {
			stringsOf(v.Field(i), each, path+"."+v.Type().Field(i).Name)
		}
	case reflect.Slice:
		for i := range v.Len() {
			stringsOf(v.Index(i), each, path)
		}
	}
}

// Whatever an object holds, what is kept of it is small and clean.
func TestWhatIsKeptOfAnObjectIsBounded(t *testing.T) {
	k := &Kubernetes{cache: NewCache(CacheOptions{Node: plain.Text(vile, plain.NameLimit)})}
	p := vilePod()
	local := k.podOf(p)
	p.Spec.NodeName, p.Spec.InitContainers = plain.Text(vile, plain.NameLimit), p.Spec.Containers
	local.Containers = k.podOf(p).Containers
	if len(local.Containers) != maxContainers {
		t.Errorf("got %d containers, want %d", len(local.Containers), maxContainers)
	}
	service, node := serviceOf(vileService()), nodeOf(vileNode())
	for _, kept := range []any{local, service, node} {
		stringsOf(reflect.ValueOf(kept), func(path, text string) {
			if !plain.Is(text, plain.NameLimit) {
				t.Errorf("%T%s: got %d bytes, %.60q, want plain text", kept, path, len(text), text)
			}
		}, "")
	}
	for _, count := range []struct {
		what       string
		got, limit int
	}{
		{"addresses of the pod", len(local.Addresses), maxOwnAddresses},
		{"addresses of the service", len(service.Addresses), maxOwnAddresses},
		{"external addresses", len(service.Shared), maxServiceAddresses},
		{"ports", len(service.Ports), maxServicePorts},
		{"addresses of the node", len(node.Addresses), maxNodeAddresses + 2*maxNodeRanges},
		{"ranges of the node", len(node.PodRanges), maxNodeRanges},
	} {
		if count.got != count.limit {
			t.Errorf("%s: got %d, want %d", count.what, count.got, count.limit)
		}
	}
	want := BoundText | BoundAddresses
	for _, over := range []struct{ got, want Bounds }{
		{local.Over, want | BoundNetworks}, {service.Over, want | BoundPorts}, {node.Over, want | BoundRanges},
	} {
		if over.got != over.want {
			t.Errorf("got bounds %b, want %b", over.got, over.want)
		}
	}
}

// Owners whose names differ beyond what is kept stay two workloads.
func TestLongOwnersStayApart(t *testing.T) {
	owned := func(kind, name string) flows.Workload {
		p := running("a", metav1.NewTime(start))
		p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: new(true)}}
		return workloadOf(p)
	}
	if a, b := owned("Job", vile+"1"), owned("Job", vile+"2"); a == b {
		t.Errorf("got %v for both names", a)
	}
	if a, b := owned(vile+"1", "n"), owned(vile+"2", "n"); a == b {
		t.Errorf("got %v for both kinds", a)
	}
	if got := owned(strings.Repeat("İ", 31), "n").Type; len(got) > plain.LabelLimit {
		t.Errorf("got a kind of %d bytes, which lower case made longer", len(got))
	}
}

// What is legal is kept to the byte, and nothing is counted.
func TestLegalNamesAreKept(t *testing.T) {
	name, label := strings.Repeat("a.b-", 63)+"c", strings.Repeat("a", 63)
	p := running(name, metav1.NewTime(start), "10.0.0.1", "2001:db8::1")
	p.Namespace, p.Spec.NodeName, p.Spec.Containers[0].Name = label, name, label
	p.OwnerReferences = []metav1.OwnerReference{{Kind: "StatefulSet", Name: name, Controller: new(true)}}
	want := flows.Pod{
		UID: "uid-" + name, Namespace: label, Name: name, Container: label, Node: name,
		Workload: flows.Workload{Type: "statefulset", Name: name},
	}
	p.UID = types.UID(want.UID[:36])
	want.UID = want.UID[:36]
	if got := podOf(p); got.Pod != want || got.Over != 0 {
		t.Errorf("got %+v beyond bounds %b, want %+v", got.Pod, got.Over, want)
	}
}

// Each bound is logged once and counted each time.
func TestBoundsAreCounted(t *testing.T) {
	var log bytes.Buffer
	c := NewCache(CacheOptions{Node: "here", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for i := range 3 {
		p := vilePod()
		p.UID = types.UID(fmt.Sprint(i))
		c.SetPod(podOf(p))
		c.SetNode(nodeOf(vileNode()))
	}
	c.SetService(serviceOf(vileService()))
	want := map[string]uint64{"text": 7, "addresses": 7, "ranges": 3, "ports": 1, "containers": 0, "external": 0, "cgroups": 0, "networks": 3}
	if got := c.Bounded(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := strings.Count(log.String(), "beyond a bound,"); got != 5 {
		t.Errorf("got %d lines, want one for each bound:\n%s", got, log.String())
	}
}
