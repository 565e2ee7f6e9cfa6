// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"

	"go.yaml.in/yaml/v3"
)

// endpoint is an address, or with a port a part of one.
type endpoint struct {
	address netip.Addr
	port    ServicePort
}

// named reports whether an entry has a name, else notes the fault.
func (r *contentReader) named(n *yaml.Node, what, name string) bool {
	if name == "" && target(n).Kind == yaml.MappingNode {
		r.fault(target(n).Line, "%s: needs a name", what)
	}
	return name != ""
}

// once notes a fault if a thing of the kind has the name already.
func (r *contentReader) once(n *yaml.Node, kind, name string) {
	key := kind + " " + name
	if first, ok := r.names[key]; ok {
		r.fault(target(n).Line, "%s given twice, first on line %d", key, first)
		return
	}
	r.names[key] = target(n).Line
}

// free takes an address for an entry, or a port of one. It notes a fault and
// returns false if another has it.
func (r *contentReader) free(line int, what string, e endpoint) bool {
	if r.full {
		return false
	}
	if r.full = len(r.addresses) >= maxEndpoints; r.full {
		r.fault(line, "%s: the file has more than %d addresses and ports of services", what, maxEndpoints)
		return false
	}
	if first, ok := r.addresses[e]; ok {
		r.fault(line, "%s: %s belongs to line %d already", what, e.address, first)
		return false
	}
	r.addresses[e] = line
	return true
}

// checkService checks what a service says against the others.
func (r *contentReader) checkService(n *yaml.Node, what string, s *Service, lines map[netip.Addr]int) {
	if len(s.Shared) > 0 && len(s.Ports) == 0 {
		r.fault(target(n).Line, "%s: externalIPs need ports", what)
	}
	if len(s.Addresses)+len(s.Shared) == 0 {
		r.fault(target(n).Line, "%s: needs ips or externalIPs", what)
	}
	if len(s.Shared) > maxServiceAddresses || len(s.Ports) > maxServicePorts {
		r.fault(target(n).Line, "%s: has %d externalIPs and %d ports, at most %d and %d are known",
			what, len(s.Shared), len(s.Ports), maxServiceAddresses, maxServicePorts)
		return
	}
	for _, a := range s.Shared {
		for _, port := range s.Ports {
			if !r.goesOn(target(n).Line) { // a product
				return
			}
			r.free(lines[a], what+": externalIPs", endpoint{a, port})
		}
	}
}

// check checks what needs the whole file, and completes it.
func (r *contentReader) check(node string) {
	here := r.content.node
	if here != "" && node != "" && here != node {
		r.fault(r.nodeLine, "node: name %q contradicts this node's name %q", here, node)
	}
	if here == "" {
		r.content.node = node
	}
	nodes := r.checkNodes()
	for _, p := range r.pods {
		r.checkPod(p, nodes)
	}
	for _, pods := range r.podRanges {
		for _, services := range r.serviceRanges {
			if pods.Overlaps(services) {
				r.fault(r.ranges[services], "serviceCIDRs: %s overlaps podCIDRs %s of line %d",
					services, pods, r.ranges[pods])
			}
		}
	}
}

// checkNodes returns the nodes that pods may name, this one included.
func (r *contentReader) checkNodes() map[string]*Node {
	nodes := make(map[string]*Node)
	for _, n := range r.nodes {
		nodes[n.Name] = n
	}
	this := nodes[r.content.node]
	switch {
	case this == nil:
		this = &Node{Name: r.content.node, Zone: r.zone}
		r.nodes = append(r.nodes, this)
		nodes[this.Name] = this
	case this.Zone == "":
		this.Zone = r.zone
	case r.zone != "" && this.Zone != r.zone:
		r.fault(r.nodeLine, "node: zone %q contradicts zone %q on line %d",
			r.zone, this.Zone, r.names["node "+this.Name])
	}
	return nodes
}

func (r *contentReader) checkPod(p *Pod, nodes map[string]*Node) {
	lines := r.podLines[p]
	if p.Name == "" {
		return // told already
	}
	what := "pod " + p.Namespace + "/" + p.Name
	if p.Node == "" {
		p.Node = r.content.node
	}
	// A single known node is this one: then others need no entry.
	if nodes[p.Node] == nil && len(nodes) > 1 {
		r.fault(lines.node, "%s: node %q is not among the nodes%s", what, p.Node, didYouMean(p.Node, nodes))
	}
	if p.Interface == "" {
		return
	}
	if p.Node != r.content.node {
		r.fault(lines.device, "%s: interface %q, but the pod is on node %q and not on this one", what, p.Interface, p.Node)
	}
	if first, ok := r.interfaces[p.Interface]; ok {
		r.fault(lines.device, "%s: interface %q belongs to line %d already", what, p.Interface, first)
		return
	}
	r.interfaces[p.Interface] = lines.device
}
