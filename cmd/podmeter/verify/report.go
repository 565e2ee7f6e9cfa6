// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// Report is what a round has found.
type Report struct {
	Node string `json:"node"`
	// Code is the exit code: 0 if all was judged and is equal or explained, 1 if a row is
	// unequal or an invariant fails, 3 if neither is and something could not be judged.
	Code int `json:"code"`
	// Tries is how many looks at both sides it took.
	Tries      int         `json:"tries"`
	Rows       []Row       `json:"interfaces"`
	Invariants []Invariant `json:"invariants"`
	// ConservationErrorBytes must be 0.
	ConservationErrorBytes uint64 `json:"conservationErrorBytes"`
	// Unattributed are the bytes of each pod that are in no flow, both directions
	// together; Unseen is what of them no program of podmeter's saw, and why. ResidueBytes
	// and UnplacedBytes are the rest, of all pods and uplinks, for which the maps had no
	// room.
	Unattributed  []PodBytes `json:"unattributed,omitempty"`
	Unseen        []Unseen   `json:"unseen,omitempty"`
	ResidueBytes  uint64     `json:"residueBytes"`
	UnplacedBytes uint64     `json:"unplacedBytes"`
	// Unbound are interfaces whose bytes wait for their pod, Lost counted bytes that are
	// on no series, by reason.
	Unbound []Unbound         `json:"unbound,omitempty"`
	Lost    map[string]uint64 `json:"lostBytes"`
	// HostNetwork are pods without an interface, to which the invariants apply alone.
	HostNetwork []Pod `json:"hostNetwork,omitempty"`
	// CheckpointProblem is why the numbers, equal or not, cannot be saved now: after a kill
	// the next agent would not know what came since. It is empty if they are, and decides
	// no exit code.
	CheckpointProblem string `json:"checkpointProblem,omitempty"`
	// NotMetered are veths into other network namespaces that the agent does not meter.
	NotMetered []string `json:"notMetered,omitempty"`
}

// PodBytes are bytes of a pod.
type PodBytes struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Bytes     uint64 `json:"bytes"`
}

// Unseen is what of an interface is on its pod's series though no program of podmeter's
// saw it.
type Unseen struct {
	Interface string         `json:"interface"`
	Namespace string         `json:"namespace"`
	Pod       string         `json:"pod"`
	Direction string         `json:"direction"`
	Why       string         `json:"why"`
	Counters  flows.Counters `json:"counters"`
}

// Unbound is an interface whose bytes wait for its pod. Gone is zero while it is there.
type Unbound struct {
	Interface string    `json:"interface"`
	Gone      time.Time `json:"gone,omitzero"`
	Bytes     uint64    `json:"bytes"`
}

// The exit codes of a report.
const (
	CodeEqual     = 0
	CodeUnequal   = 1
	CodeUndecided = 3
)

// describe takes what is said beside the rows from the last observation, and judges.
func (r *Report) describe(o *Observation) {
	r.Node = o.Second.Node
	r.Lost = make(map[string]uint64)
	for _, s := range o.Metrics[lostBytes] {
		r.Lost[s.Labels["reason"]] += uint64(s.Value)
	}
	r.ConservationErrorBytes = o.Metrics.total(ConservationError, "", "")
	r.ResidueBytes = o.Metrics.total("podmeter_residue_bytes_total", "", "")
	r.UnplacedBytes = o.Metrics.total("podmeter_unplaced_bytes_total", "", "")
	r.Unattributed = o.Metrics.unattributed()
	for i := range o.Second.Interfaces {
		i := &o.Second.Interfaces[i]
		r.Unseen = append(r.Unseen, i.unseen()...)
		r.wait(Unbound{Interface: i.Name, Bytes: i.Waiting.bytes()})
	}
	for _, p := range o.Second.HostPods {
		if p.Pod != (Pod{}) {
			r.HostNetwork = append(r.HostNetwork, p.Pod)
		}
		r.wait(Unbound{Interface: p.Cgroup, Bytes: p.Waiting.bytes()})
	}
	for _, orphan := range o.Second.Orphans {
		r.wait(Unbound{Interface: orphan.Name, Gone: orphan.Gone, Bytes: orphan.Waiting.bytes()})
	}
	r.CheckpointProblem = o.Second.CheckpointProblem
	r.NotMetered = o.notMetered()
	r.Code = r.code()
}

func (r *Report) wait(u Unbound) {
	if u.Bytes > 0 {
		r.Unbound = append(r.Unbound, u)
	}
}

func (p Pair) bytes() uint64 { return p[flows.Transmit].Bytes + p[flows.Receive].Bytes }

// unattributed adds up what of each pod is in no flow.
func (e Exposition) unattributed() (all []PodBytes) {
	sums := make(map[Pod]uint64)
	for direction := range flows.Direction(flows.Directions) {
		for _, family := range []string{FamilyFlow, FamilyFlowRetired} {
			add(sums, e.Sums(Series(family, direction, Bytes), ofKind(flows.PeerUnattributed)))
		}
	}
	for _, pod := range slices.SortedFunc(maps.Keys(sums), Pod.Compare) {
		if sums[pod] > 0 {
			all = append(all, PodBytes{pod.Namespace, pod.Name, sums[pod]})
		}
	}
	return all
}

// unseen says what of an interface no program saw.
func (i *Interface) unseen() (all []Unseen) {
	take := func(d flows.Direction, c flows.Counters, why string) {
		if !c.IsZero() {
			all = append(all, Unseen{
				Interface: i.Name, Namespace: i.Pod.Namespace, Pod: i.Pod.Name, Direction: d.String(), Why: why, Counters: c,
			})
		}
	}
	for d := range flows.Direction(flows.Directions) {
		if i.Seeded {
			take(d, i.Before[d], "before the attachment")
		}
		take(d, i.Hidden[d], "hidden by a program before podmeter's")
	}
	take(flows.Receive, i.Bypassed, "round the host's end of the veth")
	if i.State == statePartial {
		take(flows.Receive, i.Exported[flows.Receive], "no hook: an ingress qdisc has its place")
	}
	return all
}

// notMetered are the veths into other network namespaces that were there all the time
// and that the agent does not name.
func (o *Observation) notMetered() (names []string) {
	metered := make(map[int]bool)
	for _, i := range slices.Concat(o.First.Interfaces, o.Second.Interfaces) {
		metered[i.Index] = true
	}
	for _, index := range slices.Concat(o.First.Uplinks, o.Second.Uplinks) {
		metered[index] = true
	}
	for index, device := range o.After {
		if device.LeadsAway && o.Before[index].Name == device.Name && !metered[index] {
			names = append(names, device.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (r *Report) code() int {
	code := CodeEqual
	for _, row := range r.Rows {
		switch row.Verdict {
		case Unequal:
			return CodeUnequal
		case Equal, Explained:
		default:
			code = CodeUndecided
		}
	}
	for i := range r.Invariants {
		if !r.Invariants[i].Holds() {
			return CodeUnequal
		}
	}
	return code
}

// sort orders rows by pod, those without one first.
func (r *Report) sort() {
	slices.SortStableFunc(r.Rows, func(a, b Row) int {
		return cmp.Or(a.pod().Compare(b.pod()), cmp.Compare(a.Interface, b.Interface), cmp.Compare(b.Direction, a.Direction))
	})
	slices.SortFunc(r.HostNetwork, Pod.Compare)
}

// Faults are what is not what it must be, a line each.
func (r *Report) Faults() (faults []string) {
	for _, row := range r.Rows {
		if row.Verdict == Unequal {
			faults = append(faults, row.Fault())
		}
	}
	for i := range r.Invariants {
		for _, fault := range r.Invariants[i].Faults {
			faults = append(faults, fault.Text(&r.Invariants[i]))
		}
	}
	return faults
}

// Fault says by how much a row is unequal.
func (r Row) Fault() string {
	return fmt.Sprintf("%s of %s, %s: kernel minus podmeter is %s, not %s", r.Interface, r.podText(), r.Direction, r.Difference, r.Predicted)
}

func (r Row) pod() Pod { return Pod{r.Namespace, r.Pod} }

func (r Row) podText() string { return cmp.Or(r.pod().String(), "(unbound)") }

// undecided names the rows that could not be judged, by verdict.
func (r *Report) undecided() string {
	by := make(map[Verdict][]string)
	for _, row := range r.Rows {
		switch row.Verdict {
		case Settling, Moving, Unknown:
			if names := by[row.Verdict]; !slices.Contains(names, row.Interface) {
				by[row.Verdict] = append(names, row.Interface)
			}
		}
	}
	var texts []string
	for _, v := range slices.Sorted(maps.Keys(by)) {
		texts = append(texts, fmt.Sprintf("%s: %s", v, strings.Join(by[v], ", ")))
	}
	return strings.Join(texts, "; ")
}
