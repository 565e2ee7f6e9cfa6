// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podmeter/podmeter/flows"
)

var compareAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func TestWorkload(t *testing.T) {
	for _, test := range []struct {
		kind, name, hash string
		want             flows.Workload
	}{
		{"", "", "", flows.Workload{}},
		{"ReplicaSet", "web-5d4f", "5d4f", flows.Workload{Type: "deployment", Name: "web"}},
		{"ReplicaSet", "web-a-5d4f", "5d4f", flows.Workload{Type: "deployment", Name: "web-a"}},
		{"ReplicaSet", "web-5d4f", "", flows.Workload{Type: "replicaset", Name: "web-5d4f"}},
		{"ReplicaSet", "web-5d4f", "77", flows.Workload{Type: "replicaset", Name: "web-5d4f"}},
		{"Job", "backup-28412345", "", flows.Workload{Type: "cronjob", Name: "backup"}},
		{"Job", "nightly-backup-284123450", "", flows.Workload{Type: "cronjob", Name: "nightly-backup"}},
		{"Job", "backup-2841234", "", flows.Workload{Type: "job", Name: "backup-2841234"}},
		{"Job", "backup-2841234x", "", flows.Workload{Type: "job", Name: "backup-2841234x"}},
		{"Job", "-28412345", "", flows.Workload{Type: "job", Name: "-28412345"}},
		{"Job", "28412345", "", flows.Workload{Type: "job", Name: "28412345"}},
		{"StatefulSet", "db", "", flows.Workload{Type: "statefulset", Name: "db"}},
		{"DaemonSet", "proxy", "", flows.Workload{Type: "daemonset", Name: "proxy"}},
		{"ReplicationController", "old", "", flows.Workload{Type: "replicationcontroller", Name: "old"}},
		{"Node", "here", "", flows.Workload{Type: "staticpod", Name: "the-pod"}},
		{"Workflow", "steps", "", flows.Workload{Type: "workflow", Name: "steps"}},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "the-pod"}}
		if test.kind != "" {
			p.OwnerReferences = []metav1.OwnerReference{
				{Kind: "Other", Name: "not the controller"},
				{Kind: test.kind, Name: test.name, Controller: new(true)},
			}
		}
		if test.hash != "" {
			p.Labels = map[string]string{"pod-template-hash": test.hash}
		}
		if got := workloadOf(p); got != test.want {
			t.Errorf("%s %s: got %v, want %v", test.kind, test.name, got, test.want)
		}
	}
}

func TestContainer(t *testing.T) {
	one := []corev1.Container{{Name: "main"}}
	for _, test := range []struct {
		name string
		spec corev1.PodSpec
		want string
	}{
		{"one", corev1.PodSpec{Containers: one}, "main"},
		{"two", corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}, {Name: "more"}}}, ""},
		{"init", corev1.PodSpec{Containers: one, InitContainers: []corev1.Container{{Name: "init"}}}, ""},
		{"sidecar", corev1.PodSpec{Containers: one, InitContainers: []corev1.Container{
			{Name: "proxy", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}}}, ""},
		{"ephemeral", corev1.PodSpec{Containers: one, EphemeralContainers: []corev1.EphemeralContainer{{}}}, ""},
		{"none", corev1.PodSpec{}, ""},
	} {
		if got := containerOf(&corev1.Pod{Spec: test.spec}); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestEndOfPod(t *testing.T) {
	s := metav1.NewTime(start)
	for _, test := range []struct {
		name     string
		change   func(*corev1.Pod)
		finished bool
		ended    bool
	}{
		{"running", func(*corev1.Pod) {}, false, false},
		{"crashed, to be started again", func(p *corev1.Pod) { *p = *finished(p, corev1.PodRunning, s) }, false, false},
		{"succeeded", func(p *corev1.Pod) { *p = *finished(p, corev1.PodSucceeded, s) }, true, true},
		{"failed", func(p *corev1.Pod) { *p = *finished(p, corev1.PodFailed, s) }, true, true},
		{"evicted, a container not told of", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, true, false},
		{"being deleted", func(p *corev1.Pod) { p.DeletionTimestamp = &s }, false, false},
		{"being deleted, has ended", func(p *corev1.Pod) {
			*p = *finished(p, corev1.PodRunning, s)
			p.DeletionTimestamp = &s
		}, true, true},
		{"being deleted, a sidecar runs on", func(p *corev1.Pod) {
			*p = *finished(p, corev1.PodRunning, s)
			p.DeletionTimestamp = &s
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "proxy"}}
		}, false, false},
	} {
		p := running("a", s, "10.0.0.1")
		test.change(p)
		got := podOf(p)
		if got.Finished != test.finished || got.Ended.IsZero() == test.ended || test.ended && !got.Ended.Equal(start) {
			t.Errorf("%s: got %v, %v, want %v, %v", test.name, got.Finished, got.Ended, test.finished, test.ended)
		}
	}
}

// A pod whose containers crash, wait for their image or have ended has no process where the
// runtime keeps none for the pod, as CRI-O by default.
func TestIdlePod(t *testing.T) {
	waits := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	of := func(states ...corev1.ContainerState) (all []corev1.ContainerStatus) {
		for _, state := range states {
			all = append(all, corev1.ContainerStatus{State: state})
		}
		return all
	}
	for name, test := range map[string]struct {
		status corev1.PodStatus
		want   bool
	}{
		"runs":                       {corev1.PodStatus{ContainerStatuses: of(runs)}, false},
		"waits":                      {corev1.PodStatus{ContainerStatuses: of(waits)}, true},
		"one of two waits":           {corev1.PodStatus{ContainerStatuses: of(waits, runs)}, false},
		"one waits, one has ended":   {corev1.PodStatus{ContainerStatuses: of(waits, ended)}, true},
		"a sidecar runs":             {corev1.PodStatus{InitContainerStatuses: of(runs), ContainerStatuses: of(waits)}, false},
		"the first ended":            {corev1.PodStatus{InitContainerStatuses: of(ended), ContainerStatuses: of(waits)}, true},
		"somebody debugs it":         {corev1.PodStatus{ContainerStatuses: of(waits), EphemeralContainerStatuses: of(runs)}, false},
		"nothing is told of them":    {corev1.PodStatus{}, false},
		"neither is told of a state": {corev1.PodStatus{ContainerStatuses: of(corev1.ContainerState{})}, true},
	} {
		if got := podOf(&corev1.Pod{Status: test.status}).Idle; got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestService(t *testing.T) {
	ports := []corev1.ServicePort{{Port: 80}, {Port: 53, Protocol: corev1.ProtocolUDP}, {Port: 9, Protocol: corev1.ProtocolSCTP}}
	want := []ServicePort{{flows.ProtocolTCP, 80}, {flows.ProtocolUDP, 53}, {flows.ProtocolSCTP, 9}}
	balanced := corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{
		Ingress: []corev1.LoadBalancerIngress{{IP: "203.0.113.2"}, {Hostname: "lb.example"}, {IP: "203.0.113.1"}}}}
	for _, test := range []struct {
		name string
		from *corev1.Service
		want *Service
	}{
		{"dual stack, everything", &corev1.Service{
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.1",
				ClusterIPs: []string{"10.96.0.1", "fd00::1"}, ExternalIPs: []string{"203.0.113.1"}, Ports: ports},
			Status: balanced,
		}, &Service{Addresses: addresses("10.96.0.1", "fd00::1"), Shared: addresses("203.0.113.2", "203.0.113.1"),
			External: addresses("203.0.113.1"), Ports: want}},
		{"of an old server", &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1"}},
			&Service{Addresses: addresses("10.96.0.1")}},
		{"headless", &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "None", ClusterIPs: []string{"None"}, Ports: ports}}, &Service{}},
		{"external name", &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName,
			ExternalName: "example", ExternalIPs: []string{"203.0.113.1"}}}, &Service{}},
		{"no address yet", &corev1.Service{Spec: corev1.ServiceSpec{Ports: ports}}, &Service{}},
	} {
		if diff := cmp.Diff(test.want, serviceOf(test.from), compareAddresses); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

func TestNode(t *testing.T) {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "here", Labels: map[string]string{"topology.kubernetes.io/zone": "z1"},
			Annotations: map[string]string{"projectcalico.org/IPv4IPIPTunnelAddr": "10.1.0.9", "other": "10.1.0.10"}},
		Spec: corev1.NodeSpec{PodCIDRs: []string{"10.1.0.0/24", "fd00:1::/64", "10.2.0.7/32", "x"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeHostName, Address: "here"},
			{Type: corev1.NodeExternalIP, Address: "203.0.113.1"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}},
	}
	want := &Node{Name: "here", Zone: "z1",
		Addresses: addresses("192.0.2.1", "203.0.113.1", "10.1.0.9", "10.1.0.0", "10.1.0.1", "fd00:1::", "fd00:1::1"),
		PodRanges: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:1::/64"), netip.MustParsePrefix("10.2.0.7/32")}}
	if diff := cmp.Diff(want, nodeOf(n), compareAddresses); diff != "" {
		t.Error(diff)
	}
}

// What is everybody's is nobody's by the word of a status: a kubelet, or whoever writes that of a
// Service, would give the metadata service, or multicast DNS, of each node a name.
func TestStatusesClaimNothingOfEverybody(t *testing.T) {
	everybodys := []string{
		"169.254.169.254", "127.0.0.1", "0.1.2.3", "224.0.0.251", "255.255.255.255", "::1", "fe80::1", "ff02::fb", "::ffff:169.254.169.254",
		"64:ff9b::169.254.169.254",
	}
	p, n, s := &corev1.Pod{}, &corev1.Node{}, &corev1.Service{}
	s.Spec.ClusterIP, s.Spec.Ports = "10.96.0.1", []corev1.ServicePort{{Port: 80}}
	p.Status.PodIP = everybodys[0]
	n.Annotations = map[string]string{"network.cilium.io/ipv4-cilium-host": everybodys[1]}
	for _, ip := range append(everybodys, "10.0.0.1") {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Address: ip})
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
	}
	want := addresses("10.0.0.1")
	for what, got := range map[string][]netip.Addr{"pod": podOf(p).Addresses, "node": nodeOf(n).Addresses, "service": serviceOf(s).Shared} {
		if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	p.Status.PodIPs = p.Status.PodIPs[:1]
	if got := podOf(p).Addresses; len(got) != 0 {
		t.Errorf("got %v of a pod, want none", got)
	}
}

// A node whose range is the internet takes neither that nor other nodes' pods.
func TestNodeOfAllAddresses(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "liar"}}
	n.Spec.PodCIDRs = []string{"0.0.0.0/0", "::/0", "0.0.0.0/7", "2000::/31", "::ffff:0.0.0.0/96", "10.0.0.0/8", "fd00::/32"}
	node := nodeOf(n)
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/32")}
	if diff := cmp.Diff(want, node.PodRanges, compareAddresses); diff != "" || node.Over != BoundRanges {
		t.Errorf("got bounds %b, want %b; ranges (-want +got):\n%s", node.Over, BoundRanges, diff)
	}
	c := newTestCache(&clock{start})
	c.SetNode(node)
	c.SetPod(far("liar", "liar", 0, "203.0.113.9"))
	for address, want := range map[string]string{"203.0.113.9": "external", "1.1.1.1": "external", "2606:4700::1111": "external"} {
		if got := says(c.Owner(query(address, 1, 2))); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

// The kubelet knows a static pod by another UID than the API server does.
func TestMirrorOfAStaticPod(t *testing.T) {
	p := running("proxy-here", metav1.Time{})
	if got := podOf(p).StaticUID; got != "" {
		t.Errorf("a pod: got static UID %q, want none", got)
	}
	p.Annotations = map[string]string{"kubernetes.io/config.mirror": "0123abcd", "kubernetes.io/config.hash": "0123abcd"}
	if got := podOf(p); got.StaticUID != "0123abcd" || got.UID != "uid-proxy-here" {
		t.Errorf("a mirror: got UID %q, static UID %q, want uid-proxy-here and 0123abcd", got.UID, got.StaticUID)
	}
}
