// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
)

// maxEndpoints bounds the addresses of a static file, each external one of a service
// counted once for each of its ports.
const maxEndpoints = 1 << 18

// content is what a static file says.
type content struct {
	node, zone    string
	pods          []*Pod
	services      []*Service
	nodes         []*Node
	podRanges     []netip.Prefix
	serviceRanges []netip.Prefix
}

// contentReader reads a static file. The maps tell on which line a thing was
// first said.
type contentReader struct {
	strict
	content
	nodeLine   int
	names      map[string]int    // kind, namespace and name
	addresses  map[endpoint]int  // of pods, nodes, services
	full       bool              // addresses are as many as may be
	interfaces map[string]int    // of this node
	podLines   map[*Pod]podLines // for checks that need the whole file
	ranges     map[netip.Prefix]int
}

type podLines struct{ pod, node, device int }

// readContent reads a static file; the error joins all its faults. node is this
// node's name if that is known otherwise.
func readContent(file string, data []byte, node string) (*content, error) {
	r := &contentReader{
		strict: strict{file: file},
		names:  make(map[string]int), addresses: make(map[endpoint]int),
		interfaces: make(map[string]int), podLines: make(map[*Pod]podLines),
		ranges: make(map[netip.Prefix]int),
	}
	if root := r.parse(data); root != nil {
		r.root(root)
		r.check(node)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return &r.content, nil
}

func (r *contentReader) root(n *yaml.Node) {
	r.mapping(n, "file", fields{
		"node":         r.thisNode,
		"pods":         func(n *yaml.Node) { r.sequence(n, "pods", r.pod) },
		"services":     func(n *yaml.Node) { r.sequence(n, "services", r.service) },
		"nodes":        func(n *yaml.Node) { r.sequence(n, "nodes", r.aNode) },
		"podCIDRs":     r.rangesInto(&r.podRanges, "podCIDRs"),
		"serviceCIDRs": r.rangesInto(&r.serviceRanges, "serviceCIDRs"),
	})
}

func (r *contentReader) thisNode(n *yaml.Node) {
	r.nodeLine = target(n).Line
	r.mapping(n, "node", fields{
		"name": r.into(&r.content.node, "node: name", plain.NameLimit),
		"zone": r.into(&r.content.zone, "node: zone", plain.LabelLimit),
	})
	r.named(n, "node", r.content.node)
}

func (r *contentReader) pod(n *yaml.Node) {
	p := &Pod{Stated: true}
	lines := podLines{pod: target(n).Line}
	what := entryName("pod", n)
	faults := len(r.faults)
	var containers []string
	r.mapping(n, what, fields{
		"namespace": r.into(&p.Namespace, what+": namespace", plain.LabelLimit),
		"name":      r.into(&p.Name, what+": name", plain.NameLimit),
		"node":      func(n *yaml.Node) { lines.node = target(n).Line; p.Node = r.name(n, what+": node", plain.NameLimit) },
		"interface": func(n *yaml.Node) {
			lines.device = target(n).Line
			p.Interface = r.name(n, what+": interface", plain.KernelLimit)
		},
		"workload": func(n *yaml.Node) { p.Workload = r.workload(n, what) },
		"containers": func(n *yaml.Node) {
			r.sequence(n, what+": containers", func(n *yaml.Node) {
				containers = append(containers, r.name(n, what+": container", plain.LabelLimit))
			})
		},
		"ips": func(n *yaml.Node) { p.Addresses = r.own(n, what+": ips") },
	})
	if len(containers) == 1 {
		p.Container = containers[0]
	}
	if p.Interface == "" && len(p.Addresses) == 0 && len(r.faults) == faults {
		r.fault(lines.pod, "%s: needs ips or an interface", what)
	}
	p.UID = "static:" + p.Namespace + "/" + p.Name
	if r.named(n, what, p.Name) {
		r.once(n, "pod", p.Namespace+"/"+p.Name)
	}
	r.pods, r.podLines[p] = append(r.pods, p), lines
}

func (r *contentReader) workload(n *yaml.Node, pod string) (w flows.Workload) {
	what := pod + ": workload"
	r.mapping(n, what, fields{
		"type": r.into(&w.Type, what+": type", plain.LabelLimit),
		"name": r.into(&w.Name, what+": name", plain.NameLimit),
	})
	if w.Type == "" || w.Name == "" {
		r.fault(target(n).Line, "%s: needs a type and a name", what)
	}
	if w.Type != strings.ToLower(w.Type) {
		r.fault(target(n).Line, "%s: type %q must be lower case", what, w.Type)
	}
	return w
}

func (r *contentReader) service(n *yaml.Node) {
	s := &Service{}
	what := entryName("service", n)
	lines := make(map[netip.Addr]int)
	faults := len(r.faults)
	r.mapping(n, what, fields{
		"namespace": r.into(&s.Namespace, what+": namespace", plain.LabelLimit),
		"name":      r.into(&s.Name, what+": name", plain.NameLimit),
		"ips":       func(n *yaml.Node) { s.Addresses = r.own(n, what+": ips") },
		"externalIPs": func(n *yaml.Node) {
			r.sequence(n, what+": externalIPs", func(n *yaml.Node) {
				if a := r.address(n, what+": externalIPs"); a.IsValid() {
					s.Shared, lines[a] = append(s.Shared, a), target(n).Line
				}
			})
		},
		"ports": func(n *yaml.Node) { s.Ports = r.ports(n, what) },
	})
	s.UID = "static:" + s.Namespace + "/" + s.Name
	if r.named(n, what, s.Name) {
		r.once(n, "service", s.Namespace+"/"+s.Name)
	}
	if len(r.faults) == faults { // else a fault may be why something is missing
		r.checkService(n, what, s, lines)
	}
	r.services = append(r.services, s)
}

// ports reads a service's ports. A faulty one is left out.
func (r *contentReader) ports(n *yaml.Node, service string) (all []ServicePort) {
	lines := make(map[ServicePort]int)
	r.sequence(n, service+": ports", func(n *yaml.Node) {
		p, ok := r.port(n, service+": port")
		if !ok {
			return
		}
		if first, ok := lines[p]; ok {
			r.fault(target(n).Line, "%s: port %d given twice, first on line %d", service, p.Port, first)
			return
		}
		lines[p] = target(n).Line
		all = append(all, p)
	})
	return all
}

func (r *contentReader) port(n *yaml.Node, what string) (p ServicePort, ok bool) {
	p.Protocol = flows.ProtocolTCP
	faults := len(r.faults)
	given := false
	r.mapping(n, what, fields{
		"protocol": func(n *yaml.Node) { p.Protocol = r.protocol(n, what+": protocol") },
		"port": func(n *yaml.Node) {
			given = true
			if err := target(n).Decode(&p.Port); err != nil || target(n).Tag != "!!int" || p.Port == 0 {
				r.wrongType(target(n), what, "a port from 1 to 65535")
			}
		},
	})
	if !given && target(n).Kind == yaml.MappingNode {
		r.fault(target(n).Line, "%s: needs a port", what)
	}
	return p, len(r.faults) == faults
}

func (r *contentReader) protocol(n *yaml.Node, what string) uint8 {
	known := map[string]uint8{"tcp": flows.ProtocolTCP, "udp": flows.ProtocolUDP, "sctp": flows.ProtocolSCTP}
	text := r.text(n, what)
	number, ok := known[strings.ToLower(text)]
	if !ok && text != "" {
		r.fault(target(n).Line, "%s: %q is not tcp, udp or sctp", what, text)
	}
	return number
}

func (r *contentReader) aNode(n *yaml.Node) {
	node := &Node{}
	what := entryName("node", n)
	r.mapping(n, what, fields{
		"name":      r.into(&node.Name, what+": name", plain.NameLimit),
		"zone":      r.into(&node.Zone, what+": zone", plain.LabelLimit),
		"addresses": func(n *yaml.Node) { node.Addresses = r.own(n, what+": addresses") },
		"podCIDRs":  r.rangesInto(&node.PodRanges, what+": podCIDRs"),
	})
	if r.named(n, what, node.Name) {
		r.once(n, "node", node.Name)
	}
	r.nodes = append(r.nodes, node)
}

// own reads a list of addresses that belong to nothing else.
func (r *contentReader) own(n *yaml.Node, what string) (all []netip.Addr) {
	r.sequence(n, what, func(n *yaml.Node) {
		if a := r.address(n, what); a.IsValid() && r.free(target(n).Line, what, endpoint{address: a}) {
			all = append(all, a)
		}
	})
	return all
}

// rangesInto returns a reader of a list of ranges.
func (r *contentReader) rangesInto(all *[]netip.Prefix, what string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		r.sequence(n, what, func(n *yaml.Node) {
			p := r.prefix(n, what)
			if !p.IsValid() {
				return
			}
			if first, ok := r.ranges[p]; ok {
				r.fault(target(n).Line, "%s: %s given twice, first on line %d", what, p, first)
				return
			}
			r.ranges[p] = target(n).Line
			*all = append(*all, p)
		})
	}
}

// entryName names an entry of a list by its namespace and name, if it has them.
func entryName(kind string, n *yaml.Node) string {
	var namespace, name string
	n = target(n)
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		switch key, value := n.Content[i].Value, target(n.Content[i+1]); {
		case value.Kind != yaml.ScalarNode:
		case key == "namespace":
			namespace = value.Value + "/"
		case key == "name":
			name = value.Value
		}
	}
	if name == "" {
		return kind
	}
	return plain.Text(fmt.Sprintf("%s %s%s", kind, namespace, name), plain.MessageLimit)
}
