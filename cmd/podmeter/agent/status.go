// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/podmeter/podmeter/flows"
)

// What an agent answers on its socket, over HTTP.
const (
	// StatusPath gives a [Status] as JSON.
	StatusPath = "/status"
	// ReadyPath gives 200 when the agent is ready and 503 when not, and why as text.
	ReadyPath = "/readyz"
	// HealthPath gives 200 while drains go on and 503 when they do not, and why as text.
	HealthPath = "/healthz"
)

// Status is the state of an agent at one moment, as 'podmeter status' shows it.
type Status struct {
	Version string `json:"version"`
	Node    string `json:"node"`
	// AttachMode is what --attach says: auto, tcx or netlink.
	AttachMode string `json:"attachMode"`
	PinPath    string `json:"pinPath"`
	// Capacity is the flows that one set of maps holds.
	Capacity uint64         `json:"capacity"`
	Identity IdentityStatus `json:"identity"`
	Drain    DrainStatus    `json:"drain"`

	// ConservationErrorBytes must be 0; anything else is a bug.
	ConservationErrorBytes uint64 `json:"conservationErrorBytes"`
	// ResidueBytes had flows that were evicted, UnplacedBytes flows that could
	// not be inserted: both are counted, on unattributed series.
	ResidueBytes  uint64 `json:"residueBytes"`
	UnplacedBytes uint64 `json:"unplacedBytes"`
	// LostBytes are on no series, for any reason; UnboundBytes wait for their pod.
	LostBytes    uint64 `json:"lostBytes"`
	UnboundBytes uint64 `json:"unboundBytes"`

	// CheckpointProblem is why counters cannot be saved for a restart, empty if
	// they are.
	CheckpointProblem string `json:"checkpointProblem,omitempty"`

	GeoIP      []GeoIPStatus     `json:"geoip"`
	Interfaces []InterfaceStatus `json:"interfaces"`
	// Earlier is what pods' series have of interfaces that are none of Interfaces.
	Earlier []EarlierStatus `json:"earlier,omitempty"`
	// Orphans wait for their pods, and have vanished.
	Orphans []OrphanStatus `json:"orphans,omitempty"`
	// Waiting are those of Interfaces and Orphans whose bytes wait for their pods.
	Waiting []WaitingStatus `json:"waiting,omitempty"`
	// Uplinks are none of Interfaces.
	Uplinks []UplinkStatus `json:"uplinks,omitempty"`
	// Yielded are the cgroups that podmeter does not attach to.
	Yielded []YieldStatus `json:"yielded,omitempty"`
	// Unpopulated are the running pods in whose cgroup there is no process.
	Unpopulated []UnpopulatedStatus `json:"unpopulated,omitempty"`
}

// IdentityStatus is where the names of pods come from and how fresh they are.
type IdentityStatus struct {
	// Source is kubernetes, static or none.
	Source string `json:"source"`
	Synced bool   `json:"synced"`
	// LastUpdate is when the source was last heard of, zero if never.
	LastUpdate time.Time `json:"lastUpdate,omitzero"`
	// Objects counts what is cached, by kind in lower case.
	Objects map[string]int `json:"objects,omitempty"`
	// Problem is the last error, empty if all is well.
	Problem string `json:"problem,omitempty"`
}

// DrainStatus is about the drains of the maps.
type DrainStatus struct {
	IntervalSeconds float64 `json:"intervalSeconds"`
	// Last is when the last drain ended, zero before the first.
	Last time.Time `json:"last,omitzero"`
	// DurationSeconds is how long it took.
	DurationSeconds float64 `json:"durationSeconds"`
	// Count is the drains since the agent's start, Epoch the kernel side's epoch.
	Count uint64 `json:"count"`
	Epoch uint64 `json:"epoch"`
	// Problem is why the last attempt failed, empty if it did not.
	Problem string `json:"problem,omitempty"`
}

// GeoIPStatus is one MaxMind database.
type GeoIPStatus struct {
	Path string `json:"path"`
	// Type is the database's own name for what it is; Built when it was made.
	Type  string    `json:"type"`
	Built time.Time `json:"built,omitzero"`
	// Fields are what it adds: country, city, location, asn, organization.
	Fields []string `json:"fields,omitempty"`
	// Problem is why the file's last version is not in use, empty if it is. Without a type
	// no version of it is.
	Problem string `json:"problem,omitempty"`
}

// InterfaceStatus is one interface that is metered.
type InterfaceStatus struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
	// Namespace and Pod are empty until the interface is bound to its pod.
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	// Listeners are the ports of the pod, where its sockets are looked at.
	Listeners []ListenerStatus `json:"listeners,omitempty"`
	// Attachment is tcx or netlink.
	Attachment string `json:"attachment"`
	// State is one of the values of podmeter_interfaces{state}.
	State string `json:"state"`
	// Since is when counting began.
	Since    time.Time      `json:"since,omitzero"`
	Transmit flows.Counters `json:"transmit"`
	Receive  flows.Counters `json:"receive"`
	// Before is what crossed the interface before, indexed by flows.Direction;
	// Seeded is whether it is on the pod's series, as unattributed.
	Before [flows.Directions]flows.Counters `json:"before"`
	Seeded bool                             `json:"seeded"`
	// DifferencePackets is the interface's own packets less podmeter's since
	// Since, those of Hidden included, indexed by flows.Direction.
	DifferencePackets [flows.Directions]int64 `json:"differencePackets"`
	// DifferenceBytes are the bytes of the same, when the interface was quiet last: other
	// than 0 also where packets are the same and of other lengths.
	DifferenceBytes [flows.Directions]int64 `json:"differenceBytes"`
	// Ahead says in words whose programs see packets before podmeter's, where
	// packets are missing; Hidden is what they kept from it. Both are indexed by
	// flows.Direction.
	Ahead  [flows.Directions][]string       `json:"ahead"`
	Hidden [flows.Directions]flows.Counters `json:"hidden"`
	// Bypassed is what the pod received round its interface. Like Hidden it is on
	// the pod's series, as unattributed.
	Bypassed flows.Counters `json:"bypassed"`
	// ExportedStatus is what the pod's series have of the interface.
	ExportedStatus
	// Earlier is what of the interface's own counters earlier attachments accounted for,
	// indexed by flows.Direction: it is not in Exported, as little as BypassedBefore,
	// which the pod received round its interface before.
	Earlier        [flows.Directions]flows.Counters `json:"earlier"`
	BypassedBefore flows.Counters                   `json:"bypassedBefore"`
	// PodEnd is whether the pod's end of the veth can be read: it has received what the
	// interface sent, BypassedBefore and Bypassed together.
	PodEnd bool `json:"podEnd"`
}

// ListenerStatus is a TCP socket that listens, or a bound UDP socket.
type ListenerStatus struct {
	Protocol string `json:"protocol"`
	// Address is host:port; host is the unspecified address for any.
	Address string `json:"address"`
	// Container and Command are empty where they are not known for certain.
	Container string `json:"container"`
	Command   string `json:"command"`
}

// UplinkStatus is one uplink that is metered, or should be; directions are the node's.
type UplinkStatus struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
	// Attachment is tcx or netlink, after xdp+ if XDP meters what is received.
	Attachment string `json:"attachment"`
	// State is one of the values of podmeter_uplinks{state}.
	State string `json:"state"`
	// Since is when counting began.
	Since    time.Time      `json:"since,omitzero"`
	Transmit flows.Counters `json:"transmit"`
	Receive  flows.Counters `json:"receive"`
	// Problem is why it could not be attached to, empty if it was.
	Problem string `json:"problem,omitempty"`
}

// YieldStatus is a cgroup that podmeter does not attach to, as a foreign program would no
// longer run there.
type YieldStatus struct {
	// Programs is one of the values of podmeter_yielded_cgroups{programs}.
	Programs string `json:"programs"`
	// Namespace and Pod are of the pod that is not metered, empty for sockets.
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Cgroup    string `json:"cgroup"`
	// Foreign is the program, in words.
	Foreign string `json:"foreign"`
}

// UnpopulatedStatus is a pod that runs, though there is no process in its cgroup.
type UnpopulatedStatus struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	// HostNetwork pods are not metered then.
	HostNetwork bool      `json:"hostNetwork"`
	Cgroup      string    `json:"cgroup"`
	Since       time.Time `json:"since"`
}
