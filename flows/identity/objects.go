// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"strings"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
)

// podOf returns what is used of a pod.
func podOf(p *corev1.Pod) *Pod {
	var over Bounds
	pod := &Pod{
		Pod: flows.Pod{
			UID:       over.text(string(p.UID), plain.UIDLimit),
			Namespace: shared(over.text(p.Namespace, plain.LabelLimit)), Name: over.text(p.Name, plain.NameLimit),
			Workload: over.workloadOf(p), Container: shared(over.text(containerOf(p), plain.LabelLimit)),
			Node: shared(over.text(p.Spec.NodeName, plain.NameLimit)),
		},
		HostNetwork: p.Spec.HostNetwork,
		StaticUID:   over.text(p.Annotations[corev1.MirrorPodAnnotationKey], plain.UIDLimit),
		Created:     p.CreationTimestamp.Time,
		Started:     p.CreationTimestamp.Time,
		Leaving:     p.DeletionTimestamp != nil,
		Idle:        isIdle(p),
	}
	if p.Status.StartTime != nil {
		pod.Started = p.Status.StartTime.Time
	}
	for _, ip := range p.Status.PodIPs {
		pod.Addresses = over.claimed(pod.Addresses, ip.IP, maxOwnAddresses)
	}
	if len(pod.Addresses) == 0 {
		pod.Addresses = over.claimed(nil, p.Status.PodIP, maxOwnAddresses)
	}
	pod.Secondary = over.secondaryOf(p, pod.Addresses)
	ended := endOf(p)
	final := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	if pod.Finished = final || pod.Leaving && !ended.IsZero(); pod.Finished {
		pod.Ended = ended
	}
	pod.Over = over
	return pod
}

// isIdle reports whether a pod's status has containers, and none that runs.
func isIdle(p *corev1.Pod) (told bool) {
	for _, statuses := range containerStatuses(p) {
		for _, s := range statuses {
			if told = true; s.State.Running != nil {
				return false
			}
		}
	}
	return told
}

// containerStatuses are those of all containers of a pod.
func containerStatuses(p *corev1.Pod) [3][]corev1.ContainerStatus {
	return [...][]corev1.ContainerStatus{
		p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses,
	}
}

// endOf returns when the last of a pod's containers ended, zero while one runs
// or if that is not known.
func endOf(p *corev1.Pod) (end time.Time) {
	for _, statuses := range containerStatuses(p) {
		for _, s := range statuses {
			if s.State.Terminated == nil {
				return time.Time{}
			}
			if at := s.State.Terminated.FinishedAt.Time; at.After(end) {
				end = at
			}
		}
	}
	return end
}

// containerOf returns the name of a pod's only container, empty if it has
// several: init containers, sidecars and ephemeral containers count.
func containerOf(p *corev1.Pod) string {
	spec := &p.Spec
	if len(spec.Containers) != 1 || len(spec.InitContainers)+len(spec.EphemeralContainers) > 0 {
		return ""
	}
	return spec.Containers[0].Name
}

// serviceOf returns what is used of a service. A headless one has no address
// of its own, and an external name is another's. Ports matter with external addresses
// alone. The load balancer's are first among these, in case there are too many.
func serviceOf(s *corev1.Service) *Service {
	var over Bounds
	service := &Service{
		UID:       over.text(string(s.UID), plain.UIDLimit),
		Namespace: shared(over.text(s.Namespace, plain.LabelLimit)), Name: over.text(s.Name, plain.LabelLimit),
		Created: s.CreationTimestamp.Time,
	}
	defer func() { service.Over = over }()
	if s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.ClusterIP == corev1.ClusterIPNone {
		return service
	}
	ips := s.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{s.Spec.ClusterIP}
	}
	for _, ip := range ips {
		service.Addresses = over.address(service.Addresses, ip, maxOwnAddresses)
	}
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		service.Shared = over.claimed(service.Shared, ingress.IP, maxServiceAddresses)
	}
	for _, ip := range s.Spec.ExternalIPs {
		service.External = over.address(service.External, ip, maxServiceAddresses)
	}
	if len(service.Shared)+len(service.External) > 0 {
		service.Ports = over.ports(s.Spec.Ports)
	}
	return service
}

// ports returns those of a service.
func (b *Bounds) ports(ports []corev1.ServicePort) []ServicePort {
	if len(ports) > maxServicePorts {
		*b |= BoundPorts
		ports = ports[:maxServicePorts]
	}
	all := make([]ServicePort, len(ports))
	for i, port := range ports {
		all[i] = ServicePort{protocolNumber(port.Protocol), uint16(port.Port)}
	}
	return all
}

func protocolNumber(p corev1.Protocol) uint8 {
	switch p {
	case corev1.ProtocolUDP:
		return flows.ProtocolUDP
	case corev1.ProtocolSCTP:
		return flows.ProtocolSCTP
	}
	return flows.ProtocolTCP // the default of the API
}

// tunnelAnnotations are where CNIs tell a node's addresses that no pod has.
var tunnelAnnotations = []string{
	"projectcalico.org/IPv4IPIPTunnelAddr",
	"projectcalico.org/IPv4VXLANTunnelAddr",
	"projectcalico.org/IPv6VXLANTunnelAddr",
	"projectcalico.org/IPv4WireguardInterfaceAddr",
	"projectcalico.org/IPv6WireguardInterfaceAddr",
	"network.cilium.io/ipv4-cilium-host",
	"network.cilium.io/ipv6-cilium-host",
	"network.cilium.io/ipv4-health-ip",
	"network.cilium.io/ipv6-health-ip",
	"network.cilium.io/ipv4-Ingress-ip",
	"network.cilium.io/ipv6-Ingress-ip",
}

// nodeOf returns what is used of a node.
func nodeOf(n *corev1.Node) *Node {
	var over Bounds
	node := &Node{
		Name: shared(over.text(n.Name, plain.NameLimit)), Zone: shared(over.text(n.Labels[corev1.LabelTopologyZone], plain.LabelLimit)),
		Created: n.CreationTimestamp.Time,
	}
	for i := range n.Status.Conditions {
		if c := &n.Status.Conditions[i]; c.Type == corev1.NodeReady {
			node.Ready = c.Status == corev1.ConditionTrue
		}
	}
	for _, a := range n.Status.Addresses { // those that are host names are no addresses
		node.Addresses = over.claimed(node.Addresses, a.Address, maxNodeAddresses)
	}
	for _, key := range tunnelAnnotations {
		node.Addresses = over.claimed(node.Addresses, n.Annotations[key], maxNodeAddresses)
	}
	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 {
		cidrs = []string{n.Spec.PodCIDR}
	}
	if len(cidrs) > maxNodeRanges {
		over |= BoundRanges
		cidrs = cidrs[:maxNodeRanges]
	}
	for _, text := range cidrs {
		prefix, ok := over.podRange(text)
		if !ok {
			continue
		}
		node.PodRanges = append(node.PodRanges, prefix)
		node.Addresses = appendGateways(node.Addresses, prefix)
	}
	node.Over = over
	return node
}

// appendGateways appends the addresses that a node itself takes of its pod
// range: the network address is the VXLAN tunnel's with flannel, the one after
// it the bridge's with the usual CNIs. A pod that has one of them goes first.
func appendGateways(all []netip.Addr, prefix netip.Prefix) []netip.Addr {
	network := prefix.Addr()
	if network.BitLen()-prefix.Bits() < 2 {
		return all
	}
	return appendOnce(appendOnce(all, network), network.Next())
}

// appendAddress appends what is an address and not there yet.
func appendAddress(all []netip.Addr, text string) []netip.Addr {
	a, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil || a.IsUnspecified() {
		return all
	}
	return appendOnce(all, a.Unmap().WithZone(""))
}

func appendOnce(all []netip.Addr, a netip.Addr) []netip.Addr {
	for _, other := range all {
		if other == a {
			return all
		}
	}
	return append(all, a)
}

// shared returns a string that all equal ones share the memory of: names of
// namespaces, nodes and workloads are those of many pods.
func shared(s string) string { return unique.Make(s).Value() }
