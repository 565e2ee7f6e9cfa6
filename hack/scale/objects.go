// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The objects have the fields that those of a cluster in use have, and so their
// sizes; the API server adds the managed fields.

const namespaces = 50

func namespace(n int) string { return fmt.Sprintf("team-%02d", n%namespaces) }

func nodeName(n int) string {
	return fmt.Sprintf("ip-10-%d-%d-17.eu-central-1.compute.internal", n/250, n%250)
}

// address returns the nth address of a range.
func address(base string, n int) string {
	a := netip.MustParseAddr(base).As4()
	n += int(a[2])<<8 | int(a[3])
	a[1] += byte(n >> 16)
	a[2], a[3] = byte(n>>8), byte(n)
	return netip.AddrFrom4(a).String()
}

// hash returns some letters as controllers put them into names.
func hash(n int) string { return fmt.Sprintf("%010x", uint64(n+1)*0x9e3779b97f4a7c15>>24) }

func node(n int) *corev1.Node {
	name := nodeName(n)
	quantities := corev1.ResourceList{
		"cpu": resource.MustParse("16"), "memory": resource.MustParse("64Gi"), "pods": resource.MustParse("110"),
		"ephemeral-storage": resource.MustParse("100Gi"), "hugepages-2Mi": resource.MustParse("0"),
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name,
			Labels: map[string]string{
				"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
				"node.kubernetes.io/instance-type": "m6i.4xlarge", "topology.kubernetes.io/region": "eu-central-1",
				"topology.kubernetes.io/zone": fmt.Sprintf("eu-central-1%c", 'a'+n%3), "node-group": "general",
			},
			Annotations: map[string]string{
				"csi.volume.kubernetes.io/nodeid":                        `{"ebs.csi.aws.com":"i-` + hash(n) + `"}`,
				"volumes.kubernetes.io/controller-managed-attach-detach": "true",
			},
		},
		Spec: corev1.NodeSpec{PodCIDR: address("10.128.0.0", 256*n) + "/24", ProviderID: "aws:///eu-central-1a/i-" + hash(n)},
		Status: corev1.NodeStatus{Capacity: quantities, Allocatable: quantities, Conditions: heartbeat(time.Now()),
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: address("172.16.0.1", n)}, {Type: corev1.NodeHostName, Address: name}},
			NodeInfo: corev1.NodeSystemInfo{MachineID: hash(n), SystemUUID: hash(n), BootID: hash(n), KernelVersion: "6.1.0-41-cloud-amd64",
				OSImage: "Debian GNU/Linux 12 (bookworm)", ContainerRuntimeVersion: "containerd://2.1.4", KubeletVersion: "v1.34.4",
				OperatingSystem: "linux", Architecture: "amd64"},
		},
	}
	node.Spec.PodCIDRs = []string{node.Spec.PodCIDR}
	for i := range 50 { // nodeStatusMaxImages of the kubelet
		image := fmt.Sprintf("registry.example.com/team-%02d/service-%d", i, i*7)
		node.Status.Images = append(node.Status.Images, corev1.ContainerImage{
			Names: []string{image + "@sha256:" + strings.Repeat(hash(i), 6) + "0000", image + ":v1.2." + fmt.Sprint(i)}, SizeBytes: int64(i) << 20})
	}
	return node
}

// heartbeat is what a kubelet's report changes, each five minutes.
func heartbeat(now time.Time) (conditions []corev1.NodeCondition) {
	for _, c := range []struct{ kind, reason, message string }{
		{"MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"},
		{"DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"},
		{"PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"},
		{"Ready", "KubeletReady", "kubelet is posting ready status"},
	} {
		status := corev1.ConditionFalse
		if c.kind == "Ready" {
			status = corev1.ConditionTrue
		}
		conditions = append(conditions, corev1.NodeCondition{Type: corev1.NodeConditionType(c.kind), Status: status,
			Reason: c.reason, Message: c.message, LastHeartbeatTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now)})
	}
	return conditions
}

func service(n int) *corev1.Service {
	name := fmt.Sprintf("service-%d", n)
	labels := map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": name + "-1.4.2"}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace(n), Name: name, Labels: labels,
			Annotations: map[string]string{"meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": namespace(n)}},
		Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{
			{Name: "http", Port: 80, TargetPort: intstr.FromString("app-http")}, {Name: "metrics", Port: 9090, TargetPort: intstr.FromString("app-metrics")}}},
	}
}

// pod returns the nth pod without a status.
func (w *world) pod(n int) *corev1.Pod {
	owner, hash := fmt.Sprintf("service-%d", n%w.services), hash(n%w.services)
	labels := map[string]string{
		"app.kubernetes.io/name": owner, "app.kubernetes.io/instance": owner, "app.kubernetes.io/managed-by": "Helm",
		"app.kubernetes.io/version": "1.4.2", "helm.sh/chart": owner + "-1.4.2", "team": namespace(n), "pod-template-hash": hash,
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace(n % w.services), Name: fmt.Sprintf("%s-%s-%05d", owner, hash, n), Labels: labels,
			Annotations: map[string]string{
				"checksum/config":      strings.Repeat(hash, 6) + "0000",
				"prometheus.io/scrape": "true", "prometheus.io/port": "9090", "kubectl.kubernetes.io/restartedAt": "2026-01-02T03:04:05Z",
			},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: owner + "-" + hash,
				UID: types.UID("6f8a1c0e-0000-4000-8000-" + hash + "00"), Controller: new(true), BlockOwnerDeletion: new(true)}}},
		Spec: corev1.PodSpec{
			NodeName: nodeName(n % w.nodes), ServiceAccountName: owner,
			Containers: []corev1.Container{container("app", owner, 8080)},
			Tolerations: []corev1.Toleration{
				{Key: "node.kubernetes.io/not-ready", Operator: "Exists", Effect: "NoExecute", TolerationSeconds: new(int64(300))},
				{Key: "node.kubernetes.io/unreachable", Operator: "Exists", Effect: "NoExecute", TolerationSeconds: new(int64(300))}},
			TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "topology.kubernetes.io/zone",
				WhenUnsatisfiable: "ScheduleAnyway", LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/name": owner}}}},
			Volumes: []corev1.Volume{
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: owner + "-config"}}}},
				{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "kube-api-access", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: new(int64(3607)), Path: "token"}},
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
						Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}}}}}}},
		},
	}
}

func container(name, owner string, port int32) corev1.Container {
	c := corev1.Container{
		Name: name, Image: "registry.example.com/" + owner + "/" + name + ":v1.4.2",
		Args:  []string{"--config=/etc/" + owner + "/config.yaml", "--log-format=json", fmt.Sprintf("--listen=:%d", port)},
		Ports: []corev1.ContainerPort{{Name: name + "-http", ContainerPort: port}, {Name: name + "-metrics", ContainerPort: port + 1}},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("256Mi")},
			Limits:   corev1.ResourceList{"memory": resource.MustParse("512Mi")}},
		VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/" + owner}, {Name: "tmp", MountPath: "/tmp"},
			{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(port)}}},
		LivenessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/live", Port: intstr.FromInt32(port)}}},
	}
	for _, field := range []string{"metadata.name", "metadata.namespace", "status.podIP", "spec.nodeName"} {
		c.Env = append(c.Env, corev1.EnvVar{Name: strings.ToUpper(strings.NewReplacer(".", "_").Replace(field)),
			ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: field}}})
	}
	return c
}

// status returns what a kubelet reports of a pod whose containers start or run.
func status(p *corev1.Pod, ip, host string, running bool) corev1.PodStatus {
	now := metav1.Now()
	s := corev1.PodStatus{Phase: corev1.PodPending, HostIP: host, HostIPs: []corev1.HostIP{{IP: host}}, StartTime: &now, QOSClass: corev1.PodQOSBurstable}
	ready := corev1.ConditionFalse
	if running {
		s.Phase, s.PodIP, s.PodIPs, ready = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}, corev1.ConditionTrue
	}
	for _, kind := range []corev1.PodConditionType{"PodReadyToStartContainers", corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled} {
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: kind, Status: ready, LastTransitionTime: now})
	}
	for i, c := range p.Spec.Containers {
		state := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
		id := ""
		if running {
			state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
			id = "containerd://" + strings.Repeat(hash(i), 6) + "0000"
		}
		s.ContainerStatuses = append(s.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, State: state, Ready: running, Started: &running,
			Image: c.Image, ImageID: c.Image + "@sha256:" + strings.Repeat(hash(i), 6) + "0000", ContainerID: id})
	}
	return s
}
