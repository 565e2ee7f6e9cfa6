// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"time"
)

// Record is one flow of a drained set: an IPFIX flow record in all but name.
type Record struct {
	Key Key
	Counters
	// First and Last are when its first and last packet of the epoch came, to
	// about a millisecond.
	First, Last time.Time
}

// Interface is an observation point, and the evidence of which pod stands behind it. It
// is an interface, or the cgroup of a pod that has none of its own.
type Interface struct {
	Point Point
	// Name is the device's name in the host's network namespace, or that
	// of the cgroup's directory.
	Name string
	// PodUID is the UID of a pod by its cgroup, as that is called; empty of an interface.
	PodUID string
	// Attached is when counting began; Gone is when the interface vanished or
	// was let go of, zero while it is metered.
	Attached, Gone time.Time
	// Appeared is when the interface was first seen, which may be long before it was
	// attached; zero if it was there when its agent came.
	Appeared time.Time
	// HardwareAddr is its own, not that of its other end; empty if it has none.
	HardwareAddr string
	// PeerNamespace is the kernel's id (IFLA_LINK_NETNSID) of the network
	// namespace that holds the other end, -1 when there is none.
	PeerNamespace int
	// Addresses are those the host routes to this interface alone: /32 and /128
	// routes and permanent neighbours that the node's administration made.
	Addresses []netip.Addr
	// PeerAddresses are those at the other end, as its network namespace had them when they
	// were first seen; empty if there are none, or if they are not known.
	PeerAddresses []netip.Addr
}

// since returns when the interface was there for certain, and until when.
func (i *Interface) life(now time.Time) (since, until time.Time) {
	since, until = i.Attached, i.Gone
	if !i.Appeared.IsZero() && i.Appeared.Before(since) {
		since = i.Appeared
	}
	if until.IsZero() {
		until = now
	}
	return since, until
}

// Total is what one observation point saw in one direction during an epoch.
type Total struct {
	Point     Point
	Direction Direction
	// Counters is all of it.
	Counters
	// Unplaced is the part whose flow could not be inserted, Residue the part
	// whose flows the LRU evicted: both are in Counters, in no Record.
	Unplaced, Residue Counters
	// Seeded is what crossed the interface and no program of ours saw, as the
	// kernel's own counters tell: before the attachment, hidden by others or taken
	// round it. It is not in Counters.
	Seeded Counters
}

// Epoch is what one drain read: everything that was counted between two flips
// of the sets, and for each interface what is known of it.
type Epoch struct {
	// Number is the kernel side's epoch, counting from 0.
	Number uint64
	// Start and End bound the time in which the programs wrote it.
	Start, End time.Time
	Interfaces []Interface
	Totals     []Total
	// Records has one entry per flow. The slice is reused by the next drain.
	Records []Record
	// Health has one entry per end of a TCP connection that something happened to. The
	// slice is reused by the next drain.
	Health []HealthRecord
	// Unsaved says that epochs were published before this one of which nothing was kept. What
	// they had is in the residue once more: totals are cumulative, flows are not.
	Unsaved bool
	// ConservationError is the bytes by which totals and flows disagree where
	// nothing was evicted. It must be 0; anything else is a bug.
	ConservationError uint64
}
