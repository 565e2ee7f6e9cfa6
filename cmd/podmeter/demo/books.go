// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/podmeter/podmeter/flows"
)

// books are what both sides say at the end: the agent by its metrics and its
// status, the kernel by the counters of the interfaces.
type books struct {
	exposition exposition
	metered    map[string]Interface // by device
	entries    []entry
}

// entry is a pod's interface.
type entry struct {
	pod    podName
	device string
	// kernel is what the interface itself has counted since it was made.
	kernel ledger
	// metered is the agent's; its name is empty if the agent has none such.
	metered Interface
	gone    bool
}

// enter adds the interfaces of living pods and of those that have gone.
func (b *books) enter(w *world, own map[string]ledger, gone []departed) {
	for _, p := range w.pods {
		device := p.device()
		b.entries = append(b.entries, entry{
			pod: podName{p.podPlan.namespace, p.podPlan.name}, device: device,
			kernel: own[device], metered: b.metered[device],
		})
	}
	for _, d := range gone {
		b.entries = append(b.entries, entry{
			pod: podName{d.namespace, d.name}, device: d.device(), kernel: d.own, metered: d.metered, gone: true,
		})
	}
	slices.SortFunc(b.entries, func(x, y entry) int { return cmp.Compare(x.pod.String(), y.pod.String()) })
}

// reconcile compares both sides.
func (b *books) reconcile() *report {
	r := &report{}
	for _, e := range b.entries {
		for direction := range flows.Direction(flows.Directions) {
			r.add(b.balance(e, direction))
		}
		b.checkBinding(r, e)
	}
	b.checkStrangers(r)
	for direction := range flows.Direction(flows.Directions) {
		for _, u := range []unit{inBytes, inPackets} {
			b.checkFlows(r, direction, u)
		}
		b.checkExternals(r, direction)
	}
	b.checkConservation(r)
	b.splitVersions(r)
	return r
}

// balance is one interface in one direction.
func (b *books) balance(e entry, direction flows.Direction) balance {
	l := balance{
		entry: e, direction: direction,
		podmeter: b.exposition.counters(e.pod, direction),
		before:   e.metered.Before[direction],
		kernel:   e.kernel[direction],
	}
	sum := l.podmeter
	if !e.metered.Seeded {
		sum.Add(l.before)
	}
	l.difference = sum.Sub(l.kernel)
	return l
}

// checkBinding checks that the agent meters an interface for the right pod.
func (b *books) checkBinding(r *report, e entry) {
	bound := podName{e.metered.Namespace, e.metered.Pod}
	switch {
	case e.metered.Name == "":
		r.fault("%s of %s: the agent does not meter it", e.device, e.pod)
	case bound != e.pod:
		r.fault("%s of %s: the agent takes it for an interface of %q", e.device, e.pod, bound)
	}
}

// checkStrangers checks that nothing is metered that is no pod's interface, and
// that no pod has series that is none of the demo's.
func (b *books) checkStrangers(r *report) {
	devices, pods := make(map[string]bool), make(map[podName]bool)
	for _, e := range b.entries {
		devices[e.device], pods[e.pod] = true, true
	}
	for _, device := range slices.Sorted(maps.Keys(b.metered)) {
		if !devices[device] {
			r.fault("%s: the agent meters it, and it is no pod's", device)
		}
	}
	for pod := range b.exposition.sums(series(podFamily, flows.Transmit, inBytes), nil) {
		if !pods[pod] {
			r.fault("%s: it has series, and is none of the demo's pods", pod)
		}
	}
}

// checkFlows checks, for each pod, that flow and retired rows are the pod's sum.
func (b *books) checkFlows(r *report, direction flows.Direction, u unit) {
	pods := b.exposition.sums(series(podFamily, direction, u), nil)
	rows := b.exposition.sums(series(flowFamily, direction, u), nil)
	add(rows, b.exposition.sums(series(flowRetiredFamily, direction, u), nil))
	r.identity(fmt.Sprintf("flow + flow_retired = pod, %s %s", direction, u), rows, pods)
}

// checkExternals checks that the external family has the bytes of the external
// flow rows.
func (b *books) checkExternals(r *report, direction flows.Direction) {
	external := func(labels map[string]string) bool {
		return labels["peer_kind"] == flows.PeerExternal.String()
	}
	places := b.exposition.sums(series(externalFamily, direction, inBytes), nil)
	add(places, b.exposition.sums(series(externalRetiredFamily, direction, inBytes), nil))
	rows := b.exposition.sums(series(flowFamily, direction, inBytes), external)
	add(rows, b.exposition.sums(series(flowRetiredFamily, direction, inBytes), external))
	r.identity(fmt.Sprintf(`external + external_retired = flow + flow_retired of peer_kind="external", %s bytes`, direction), places, rows)
}

func add(sums, more map[podName]uint64) {
	for pod, n := range more {
		sums[pod] += n
	}
}

func (b *books) checkConservation(r *report) {
	samples := b.exposition[conservationError]
	if len(samples) == 0 {
		r.fault("%s: the agent does not export it", conservationError)
		return
	}
	for _, s := range samples {
		if s.value != 0 {
			r.fault("%s: got %v, want 0", conservationError, s.value)
		}
	}
	r.held = append(r.held, conservationError+" = 0")
}

// splitVersions tells each pod's bytes by the version of IP, which the label
// peer_ip shows.
func (b *books) splitVersions(r *report) {
	split := make(map[podName]*versions)
	for direction := range flows.Direction(flows.Directions) {
		rows := b.exposition[series(flowFamily, direction, inBytes)]
		for _, s := range slices.Concat(rows, b.exposition[series(flowRetiredFamily, direction, inBytes)]) {
			if split[s.pod()] == nil {
				split[s.pod()] = &versions{pod: s.pod()}
			}
			split[s.pod()].add(s.labels["peer_ip"], uint64(s.value))
		}
	}
	var all versions
	for _, v := range split {
		r.versions = append(r.versions, *v)
		all.four += v.four
		all.six += v.six
	}
	slices.SortFunc(r.versions, func(x, y versions) int { return cmp.Compare(x.pod.String(), y.pod.String()) })
	if all.four == 0 {
		r.fault("IPv4: no byte was counted")
	}
	if all.six == 0 {
		r.fault("IPv6: no byte was counted")
	}
}

// versions are a pod's bytes, in both directions, by the version of IP.
type versions struct {
	pod             podName
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
