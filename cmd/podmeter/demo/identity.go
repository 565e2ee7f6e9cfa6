// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"net/netip"

	"go.yaml.in/yaml/v3"
)

// staticFile is the world as the agent's --static-file takes it. No pod says
// which interface is its own: that is for the agent to find out.
type staticFile struct {
	Node     staticNode     `yaml:"node"`
	Nodes    []staticNode   `yaml:"nodes"`
	PodCIDRs []netip.Prefix `yaml:"podCIDRs"`
	Pods     []staticPod    `yaml:"pods"`
}

type staticNode struct {
	Name      string       `yaml:"name"`
	Zone      string       `yaml:"zone"`
	Addresses []netip.Addr `yaml:"addresses,omitempty"`
}

type staticPod struct {
	Namespace  string         `yaml:"namespace"`
	Name       string         `yaml:"name"`
	Node       string         `yaml:"node"`
	Workload   staticWorkload `yaml:"workload"`
	Containers []string       `yaml:"containers"`
	IPs        []netip.Addr   `yaml:"ips"`
}

type staticWorkload struct {
	Type string `yaml:"type"`
	Name string `yaml:"name"`
}

// staticIdentity is the content of the file for these pods.
func staticIdentity(pods []podPlan) ([]byte, error) {
	here := staticNode{Name: nodeName, Zone: "demo-zone"}
	file := staticFile{Node: here, Nodes: []staticNode{here}, PodCIDRs: podRanges()}
	file.Nodes[0].Addresses = nodeAddresses()
	for _, p := range pods {
		file.Pods = append(file.Pods, staticPod{
			Namespace: p.namespace, Name: p.name, Node: nodeName, IPs: p.addresses,
			Workload:   staticWorkload{p.workloadType, p.workload},
			Containers: []string{p.container},
		})
	}
	text, err := yaml.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("write identity of the demo's pods: %w", err)
	}
	return text, nil
}
