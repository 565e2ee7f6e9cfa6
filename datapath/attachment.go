// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// drainsAfterGone is how many drains a vanished interface's point outlives it:
// one for each set.
const drainsAfterGone = 2

// State tells how an interface is metered.
type State string

// The states of an interface.
const (
	StateAttached State = "attached" // every packet is counted
	StateSettling State = "settling" // what passed before the attachment is not yet known
	StateDiffers  State = "differs"  // the interface counts other packets than we do
	StateGone     State = "gone"     // its last packets are being drained
)

// States returns all states.
func States() []State {
	return []State{StateAttached, StateSettling, StateDiffers, StateGone}
}

// attachment is a metered interface, from its attachment until its last packet
// has been published.
type attachment struct {
	point         uint32
	name          string
	hooks         hooks
	mode          AttachMode
	attached      time.Time
	gone          time.Time
	peerNamespace int
	addresses     []netip.Addr
	// seeded is whether the interface came after the start, so that its whole
	// ledger is the pod's and what passed before the attachment is published.
	seeded bool
	ledger ledger
	// seeds wait to be published: the part before the attachment.
	seeds byDirection
	// drains is how many are left until the point can be forgotten.
	drains int
}

func (a *attachment) living() bool { return a.gone.IsZero() }

// leave notes that the interface is metered no more.
func (a *attachment) leave(now time.Time) {
	a.gone, a.drains = now, drainsAfterGone
}

// read takes a reading of the ledger.
func (a *attachment) read(r reading) {
	if a.ledger.read(r) && a.seeded {
		a.seeds = a.ledger.before
	}
}

func (a *attachment) state() State {
	switch {
	case !a.living():
		return StateGone
	case !a.ledger.settled:
		return StateSettling
	case a.ledger.difference != [flows.Directions]int64{}:
		return StateDiffers
	}
	return StateAttached
}

func (a *attachment) domain() flows.Interface {
	return flows.Interface{
		Point: flows.Point(a.point), Name: a.name, Attached: a.attached, Gone: a.gone,
		PeerNamespace: a.peerNamespace, Addresses: a.addresses,
	}
}
