// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
)

// agentSource is an agent that is asked by its socket. It implements [verify.Source];
// each answer has to come within the client's patience.
type agentSource struct{ client *client }

// Drain publishes all that the agent counted before the call.
func (s agentSource) Drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.client.patience)
	defer cancel()
	return s.client.drain(ctx)
}

// Metrics returns what the agent exports.
func (s agentSource) Metrics(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.client.patience)
	defer cancel()
	return s.client.metrics(ctx)
}

// Status returns what the agent says of itself.
func (s agentSource) Status(ctx context.Context) (*verify.Agent, error) {
	ctx, cancel := context.WithTimeout(ctx, s.client.patience)
	defer cancel()
	status, err := s.client.status(ctx)
	if err != nil {
		return nil, err
	}
	return verified(status), nil
}

// verified is a status as it is verified.
func verified(status *agent.Status) *verify.Agent {
	a := &verify.Agent{Node: status.Node, CheckpointProblem: status.CheckpointProblem, Earlier: make(map[verify.Pod]verify.Pair, len(status.Earlier))}
	for n := range status.Interfaces {
		i := verifiedInterface(&status.Interfaces[n])
		if status.Interfaces[n].Attachment == string(datapath.AttachCgroup) {
			a.HostPods = append(a.HostPods, verify.HostPod{Pod: i.Pod, Cgroup: i.Name, Exported: i.Exported, Waiting: i.Waiting})
		} else {
			a.Interfaces = append(a.Interfaces, i)
		}
	}
	for _, e := range status.Earlier {
		pod := verify.PodOf(e.Namespace, e.Pod)
		sum := a.Earlier[pod] // names that are no UTF-8 may have become the same
		for d := range sum {
			sum[d].Add(e.Exported[d])
		}
		a.Earlier[pod] = sum
	}
	for _, u := range status.Uplinks {
		a.Uplinks = append(a.Uplinks, u.Index)
	}
	for _, o := range status.Orphans {
		a.Orphans = append(a.Orphans, verify.Orphan{Name: o.Name, Gone: o.Gone, Waiting: o.Waiting})
	}
	return a
}

func verifiedInterface(s *agent.InterfaceStatus) verify.Interface {
	i := verify.Interface{
		Name: s.Name, Index: s.Index, State: s.State, Since: s.Since,
		Exported: s.Exported, Waiting: s.Waiting, ExportedPartly: s.ExportedPartly,
		Before: s.Before, Earlier: s.Earlier, Seeded: s.Seeded,
		Hidden: s.Hidden, Bypassed: s.Bypassed, BypassedBefore: s.BypassedBefore, PodEnd: s.PodEnd,
	}
	if s.Pod != "" {
		i.Pod = verify.PodOf(s.Namespace, s.Pod)
	}
	for d := range i.Difference {
		i.Difference[d] = verify.Delta{Bytes: s.DifferenceBytes[d], Packets: s.DifferencePackets[d]}
	}
	return i
}

// readKernel reads the counters of all interfaces of this network namespace, and what
// the pods' ends of veths have received. An end that cannot be read is left out.
func readKernel() (verify.Kernel, error) {
	links, err := datapath.ListLinks()
	if err != nil {
		return nil, err
	}
	ends, err := datapath.OpenPodEnds()
	if err != nil {
		return nil, fmt.Errorf("read the pods' ends of veths: %w", err)
	}
	defer ends.Close()
	kernel := make(verify.Kernel, len(links))
	for _, l := range links {
		kernel[l.Attrs().Index] = deviceOf(l, ends)
	}
	return kernel, nil
}

func deviceOf(l netlink.Link, ends *datapath.PodEnds) verify.Device {
	device := verify.Device{Name: l.Attrs().Name}
	if s := l.Attrs().Statistics; s != nil {
		device.Own[flows.Transmit] = flows.Counters{Bytes: s.RxBytes, Packets: s.RxPackets}
		device.Own[flows.Receive] = flows.Counters{Bytes: s.TxBytes, Packets: s.TxPackets}
	}
	received, leadsAway, err := ends.Received(l)
	device.LeadsAway = leadsAway
	if leadsAway && err == nil {
		device.PodEnd, device.HasPodEnd = received, true
	}
	return device
}
