// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
)

// books are what both sides say at the end: the agent by its metrics and its status,
// the kernel by the counters of the interfaces, judged as 'podmeter verify' does.
type books struct {
	*verify.Report
	exposition verify.Exposition
	metered    map[string]verify.Interface // by device
	entries    []entry
}

// entry is a pod's interface.
type entry struct {
	pod    verify.Pod
	device string
	// metered is the agent's; its name is empty if the agent has none such.
	metered verify.Interface
	gone    bool
	// rows are both sides, by direction; without a verdict if they were not compared.
	rows [flows.Directions]verify.Row
}

// living adds the interface of a pod that is there.
func (b *books) living(pod verify.Pod, device string) {
	e := entry{pod: pod, device: device, metered: b.metered[device]}
	for _, row := range b.Rows {
		if row.Interface == device {
			e.rows[directionOf(row)] = row
		}
	}
	b.entries = append(b.entries, e)
}

// departed adds the interface of a pod that has gone. Its own counters were read
// before; parts is what the series of each pod have.
func (b *books) departed(d departed, device string, parts map[verify.Pod]verify.Pair) {
	e := entry{pod: podOf(d.podPlan), device: device, metered: d.metered, gone: true}
	d.metered.Exported = parts[e.pod]
	for direction := range flows.Direction(flows.Directions) {
		e.rows[direction] = d.metered.Judge(verify.Device{Name: device, Own: d.own}, direction)
	}
	b.entries = append(b.entries, e)
}

func podOf(p podPlan) verify.Pod { return verify.Pod{Namespace: p.namespace, Name: p.name} }

func directionOf(row verify.Row) flows.Direction {
	if row.Direction == flows.Transmit.String() {
		return flows.Transmit
	}
	return flows.Receive
}

// reconcile judges what both sides say. The demo's world is plain: there nothing but
// equality will do.
func (b *books) reconcile() *report {
	r := &report{}
	slices.SortFunc(b.entries, func(x, y entry) int { return x.pod.Compare(y.pod) })
	for _, e := range b.entries {
		for direction, row := range e.rows {
			r.add(balance{e, flows.Direction(direction), row})
		}
		b.checkBinding(r, e)
	}
	b.checkStrangers(r)
	for i := range b.Invariants {
		r.invariant(&b.Invariants[i])
	}
	b.splitVersions(r)
	return r
}

// checkBinding checks that the agent meters an interface for the right pod.
func (b *books) checkBinding(r *report, e entry) {
	switch bound := e.metered.Pod; {
	case e.metered.Name == "":
		r.fault("%s of %s: the agent does not meter it", e.device, e.pod)
	case bound != e.pod:
		r.fault("%s of %s: the agent takes it for an interface of %q", e.device, e.pod, bound)
	}
}

// checkStrangers checks that nothing is metered that is no pod's interface, and
// that no pod has series that is none of the demo's.
func (b *books) checkStrangers(r *report) {
	devices, pods := make(map[string]bool), make(map[verify.Pod]bool)
	for _, e := range b.entries {
		devices[e.device], pods[e.pod] = true, true
	}
	for _, device := range slices.Sorted(maps.Keys(b.metered)) {
		if !devices[device] {
			r.fault("%s: the agent meters it, and it is no pod's", device)
		}
	}
	series := b.exposition.Sums(verify.Series(verify.FamilyPod, flows.Transmit, verify.Bytes), nil)
	for _, pod := range slices.SortedFunc(maps.Keys(series), verify.Pod.Compare) {
		if !pods[pod] {
			r.fault("%s: it has series, and is none of the demo's pods", pod)
		}
	}
}

// splitVersions tells each pod's bytes by the version of IP, which the label
// peer_ip shows.
func (b *books) splitVersions(r *report) {
	split := make(map[verify.Pod]*versions)
	for direction := range flows.Direction(flows.Directions) {
		for _, family := range []string{verify.FamilyFlow, verify.FamilyFlowRetired} {
			for _, s := range b.exposition[verify.Series(family, direction, verify.Bytes)] {
				if split[s.Pod()] == nil {
					split[s.Pod()] = &versions{pod: s.Pod()}
				}
				split[s.Pod()].add(s.Labels["peer_ip"], uint64(s.Value))
			}
		}
	}
	var all versions
	for _, v := range split {
		r.versions = append(r.versions, *v)
		all.four += v.four
		all.six += v.six
	}
	slices.SortFunc(r.versions, func(x, y versions) int { return x.pod.Compare(y.pod) })
	if all.four == 0 {
		r.fault("IPv4: no byte was counted")
	}
	if all.six == 0 {
		r.fault("IPv6: no byte was counted")
	}
}

// versions are a pod's bytes, in both directions, by the version of IP.
type versions struct {
	pod             verify.Pod
	four, six, rest uint64
}

func (v *versions) add(peer string, bytes uint64) {
	address, err := netip.ParseAddr(peer)
	switch {
	case err != nil:
		v.rest += bytes
	case address.Unmap().Is4():
		v.four += bytes
	default:
		v.six += bytes
	}
}
