// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"time"

	"github.com/podmeter/podmeter/flows"
)

// Agent is what an agent says of itself at one moment.
type Agent struct {
	Node       string
	Interfaces []Interface
	// HostPods are metered at their cgroups: no interface can be held against them.
	HostPods []HostPod
	// Earlier is what pods' series have of interfaces that are none of the above.
	Earlier map[Pod]Pair
	// Orphans vanished before their pods were known.
	Orphans []Orphan
	// Uplinks are the ifindexes of interfaces that lead out of the node.
	Uplinks []int
	// CheckpointProblem is why counters cannot be saved for a restart, empty if they are.
	CheckpointProblem string
}

// Pair are counters of both directions, indexed by [flows.Direction].
type Pair [flows.Directions]flows.Counters

// Interface is a metered interface as the agent tells of it. Arrays are indexed by
// [flows.Direction].
type Interface struct {
	Name  string
	Index int
	Pod   Pod // empty while it is unbound
	// State is one of podmeter_interfaces{state}; Since is when counting began.
	State string
	Since time.Time
	// Exported is on the series of the pod, Waiting will be once that is known.
	Exported, Waiting Pair
	// ExportedPartly is whether Exported lacks what was exported by an earlier build.
	ExportedPartly bool
	// Before passed before the attachment, and is in Exported if Seeded. Earlier was
	// accounted for by earlier attachments, and is not.
	Before, Earlier Pair
	Seeded          bool
	// Difference is what the agent itself knows that the interface counts otherwise than
	// podmeter.
	Difference [flows.Directions]Delta
	// Hidden by programs before podmeter's, and Bypassed round the interface, were seen by
	// none of its programs, and are in Exported. BypassedBefore is not.
	Hidden                   Pair
	Bypassed, BypassedBefore flows.Counters
	// PodEnd is whether the agent can read the other end.
	PodEnd bool
}

// HostPod is a pod in the node's own network.
type HostPod struct {
	Pod               // empty while it is not known
	Cgroup            string
	Exported, Waiting Pair
}

// Orphan is an interface that vanished before its pod was known.
type Orphan struct {
	Name    string
	Gone    time.Time
	Waiting Pair
}

// States of an interface that are not judged as others are.
const (
	stateGone     = "gone"
	stateSettling = "settling"
	stateUnknown  = "unknown"
	statePartial  = "partial"
)

// Device is what the kernel says of an interface, directions being those of its pod:
// what the host's end of a veth receives, the pod transmits.
type Device struct {
	Name string
	Own  Pair
	// PodEnd is what the other end received, if HasPodEnd: a veth into another network
	// namespace whose other end could be read.
	PodEnd    flows.Counters
	HasPodEnd bool
	// LeadsAway is whether it is a veth into another network namespace.
	LeadsAway bool
}

// Kernel is what the kernel says of all interfaces at one moment, by ifindex.
type Kernel map[int]Device

// counted is the interface's own counter of a direction. What a pod receives is read at
// its own end where that is known to the agent too: packets may come round the host's.
func (i *Interface) counted(device Device, d flows.Direction) flows.Counters {
	if d == flows.Receive && i.readsPodEnd(device) {
		return device.PodEnd
	}
	return device.Own[d]
}

func (i *Interface) readsPodEnd(device Device) bool { return i.PodEnd && device.HasPodEnd }

// Uncounted is what of the interface's own counter is in no series of the pod, or was
// put there by an earlier attachment.
func (i *Interface) Uncounted(device Device, d flows.Direction) flows.Counters {
	sum := i.Earlier[d]
	if !i.Seeded {
		sum.Add(i.Before[d])
	}
	if d == flows.Receive && i.readsPodEnd(device) {
		sum.Add(i.BypassedBefore)
	}
	return sum
}

// view is all of an interface that must be the same before and after a scrape for the
// scrape to be held against the interface's counters.
type view struct {
	pod               Pod
	state             string
	exported, waiting flows.Counters
	uncounted         flows.Counters
	difference        Delta
}

func (i *Interface) view(device Device, d flows.Direction) view {
	return view{i.Pod, i.State, i.Exported[d], i.Waiting[d], i.Uncounted(device, d), i.Difference[d]}
}

// Delta is a difference of counters.
type Delta struct {
	Bytes   int64 `json:"bytes"`
	Packets int64 `json:"packets"`
}

// DeltaOf is a minus b.
func DeltaOf(a, b flows.Counters) Delta {
	return Delta{int64(a.Bytes - b.Bytes), int64(a.Packets - b.Packets)}
}

func (d Delta) plus(c flows.Counters) Delta {
	return Delta{d.Bytes + int64(c.Bytes), d.Packets + int64(c.Packets)}
}

// IsZero reports whether there is no difference.
func (d Delta) IsZero() bool { return d == Delta{} }
