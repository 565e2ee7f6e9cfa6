// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/podmeter/podmeter/flows"
)

// The counters that must be 0.
const (
	// ConservationError counts the bytes by which the kernel side's totals and flows
	// disagree.
	ConservationError = "podmeter_conservation_error_bytes_total"

	lostBytes = "podmeter_lost_bytes_total"
	// lostNoInterface is the reason of lost bytes that must not happen.
	lostNoInterface = "no_interface"
)

// Invariant is a sum that must be equal to another in each scrape.
type Invariant struct {
	Name string `json:"name"`
	// Holders are how many pods or uplinks it was checked of.
	Holders int     `json:"holders"`
	Faults  []Fault `json:"faults,omitempty"`
}

// Holds reports whether both sides are equal everywhere.
func (i *Invariant) Holds() bool { return len(i.Faults) == 0 }

// Fault is where an invariant does not hold. Of is a pod or an uplink, empty for the
// agent as a whole; Missing is whether that does not export the counter at all.
type Fault struct {
	Of      string `json:"of,omitempty"`
	Left    uint64 `json:"left"`
	Right   uint64 `json:"right"`
	Missing bool   `json:"missing,omitempty"`
}

// Text says a fault of an invariant.
func (f Fault) Text(i *Invariant) string {
	switch {
	case f.Missing:
		return i.Name + ": the agent does not export it"
	case f.Of == "":
		return fmt.Sprintf("%s: got %d", i.Name, f.Left)
	}
	return fmt.Sprintf("%s: %s has %d on the left and %d on the right", i.Name, f.Of, f.Left, f.Right)
}

// Invariants checks what holds of every scrape by itself: docs/METRICS.md, "The
// identities", and the counters that must be 0.
func (e Exposition) Invariants() (all []Invariant) {
	for direction := range flows.Direction(flows.Directions) {
		for _, u := range []Unit{Bytes, Packets} {
			all = append(all, e.flowsOfPods(direction, u))
		}
		all = append(all, e.externals(direction))
		for _, u := range []Unit{Bytes, Packets} {
			if len(e[Series(FamilyUplinkInterface, direction, u)]) > 0 {
				all = append(all, e.flowsOfUplinks(direction, u))
			}
		}
	}
	return append(all, e.zero(ConservationError, "", ""), e.zero(lostBytes, "reason", lostNoInterface))
}

// flowsOfPods checks that flow and retired rows are each pod's sum.
func (e Exposition) flowsOfPods(direction flows.Direction, u Unit) Invariant {
	rows := e.Sums(Series(FamilyFlow, direction, u), nil)
	add(rows, e.Sums(Series(FamilyFlowRetired, direction, u), nil))
	return compare(fmt.Sprintf("flow + flow_retired = pod, %s %s", direction, u),
		rows, e.Sums(Series(FamilyPod, direction, u), nil), Pod.String)
}

// externals checks that the external family has the bytes of the external flow rows. It
// counts no packets.
func (e Exposition) externals(direction flows.Direction) Invariant {
	places := e.Sums(Series(FamilyExternal, direction, Bytes), nil)
	add(places, e.Sums(Series(FamilyExternalRetired, direction, Bytes), nil))
	rows := e.Sums(Series(FamilyFlow, direction, Bytes), ofKind(flows.PeerExternal))
	add(rows, e.Sums(Series(FamilyFlowRetired, direction, Bytes), ofKind(flows.PeerExternal)))
	return compare(fmt.Sprintf(`external + external_retired = flow + flow_retired of peer_kind="external", %s bytes`, direction),
		places, rows, Pod.String)
}

// flowsOfUplinks checks that the rows of each uplink are its sum.
func (e Exposition) flowsOfUplinks(direction flows.Direction, u Unit) Invariant {
	rows := e.byUplink(Series(FamilyUplink, direction, u))
	add(rows, e.byUplink(Series(FamilyUplinkRetired, direction, u)))
	return compare(fmt.Sprintf("uplink + uplink_retired = uplink_interface, %s %s", direction, u),
		rows, e.byUplink(Series(FamilyUplinkInterface, direction, u)), func(name string) string { return name })
}

func (e Exposition) byUplink(name string) map[string]uint64 {
	sums := make(map[string]uint64)
	for _, s := range e[name] {
		sums[s.Labels["interface"]] += uint64(s.Value)
	}
	return sums
}

// zero checks that a counter is exported and 0.
func (e Exposition) zero(name, label, is string) Invariant {
	i := Invariant{Name: name + " = 0", Holders: 1}
	if label != "" {
		i.Name = fmt.Sprintf("%s{%s=%s} = 0", name, label, strconv.Quote(is))
	}
	if value := e.total(name, label, is); value != 0 {
		i.Faults = []Fault{{Left: value}}
	}
	if len(e[name]) == 0 {
		i.Faults = []Fault{{Missing: true}}
	}
	return i
}

func ofKind(kind flows.PeerKind) func(labels map[string]string) bool {
	return func(labels map[string]string) bool { return labels["peer_kind"] == kind.String() }
}

func add[K comparable](sums, more map[K]uint64) {
	for key, n := range more {
		sums[key] += n
	}
}

// compare is the invariant that two sums are equal.
func compare[K comparable](name string, left, right map[K]uint64, text func(K) string) Invariant {
	both := maps.Clone(left)
	maps.Copy(both, right)
	i := Invariant{Name: name, Holders: len(both)}
	for key := range both {
		if left[key] != right[key] {
			i.Faults = append(i.Faults, Fault{Of: text(key), Left: left[key], Right: right[key]})
		}
	}
	i.sort()
	return i
}

func (i *Invariant) sort() {
	slices.SortFunc(i.Faults, func(a, b Fault) int { return cmp.Compare(a.Of, b.Of) })
}

// merge adds the faults of another scrape, once for each holder.
func (i *Invariant) merge(o Invariant) {
	i.Holders = max(i.Holders, o.Holders)
	for _, fault := range o.Faults {
		known := func(f Fault) bool { return f.Of == fault.Of }
		if !slices.ContainsFunc(i.Faults, known) {
			i.Faults = append(i.Faults, fault)
		}
	}
	i.sort()
}
