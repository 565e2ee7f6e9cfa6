// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
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
	StatePartial  State = "partial"  // one direction is known from the interface's own counters alone
	StateDiffers  State = "differs"  // the interface counts other packets than we do
	StateGone     State = "gone"     // its last packets are being drained

	// StateRefused is an uplink's that could not be attached to.
	StateRefused State = "refused"
)

// States returns all states.
func States() []State {
	return []State{StateAttached, StateSettling, StatePartial, StateDiffers, StateGone}
}

// attachment is a metered interface, from before its programs are attached until
// its last packet has been published.
type attachment struct {
	point         uint32
	name          string
	device        string // tells it from another device with its index, see deviceOf
	hooks         hooks  // nil before and after the time in which they are attached
	mode          AttachMode
	attached      time.Time
	gone          time.Time
	peerNamespace int
	addresses     []netip.Addr
	// seeded is whether what passed before the attachment is published: not for
	// an interface that was there when the meter was made.
	seeded bool
	// resumed is whether the device had an attachment before.
	resumed bool
	ledger  ledger
	// seeds wait to be published: what is known from the ledger alone.
	seeds byDirection
	// drains is how many are left until the point can be forgotten.
	drains int
	// vanished is whether the device itself is gone, and not only the attachment.
	vanished bool
}

func (a *attachment) living() bool { return a.gone.IsZero() }

// metered reports whether the programs are attached.
func (a *attachment) metered() bool { return a.living() && a.hooks != hooks{} }

// identify takes note of what a link tells of itself.
func (a *attachment) identify(l netlink.Link) {
	attrs := l.Attrs()
	a.name, a.device, a.peerNamespace = attrs.Name, deviceOf(l), attrs.NetNsID
}

// deviceOf is by what a device is told from a later one with its index. Hardware
// addresses alone would not do: some CNI plugins give all veths the same.
func deviceOf(l netlink.Link) string {
	attrs := l.Attrs()
	return fmt.Sprintf("%s %s %d", attrs.Name, attrs.HardwareAddr, attrs.ParentIndex)
}

// enter notes that the programs are attached.
func (a *attachment) enter(h hooks, mode AttachMode) {
	a.hooks, a.mode = h, mode
	for d := range h {
		a.ledger.unmetered[d] = h[d] == nil
	}
}

// leave notes that the interface is metered no more.
func (a *attachment) leave(now time.Time) {
	known := a.ledger.abandon()
	if a.seeded {
		a.seeds = a.seeds.add(known)
	}
	a.gone, a.drains = now, drainsAfterGone
}

// read takes a reading of the ledger.
func (a *attachment) read(r reading) {
	settled := a.ledger.settled
	known := a.ledger.read(r)
	if a.seeded || settled {
		a.seeds = a.seeds.add(known)
	}
}

// accounted returns what of the interface's own counters needs no seeding any
// more, given what the programs counted in all.
func (a *attachment) accounted(counted byDirection) byDirection {
	sum := counted.add(a.ledger.before).add(a.ledger.base)
	for d, unmetered := range a.ledger.unmetered {
		if unmetered {
			sum[d] = a.ledger.last.second[d]
		}
	}
	return sum
}

// learn takes note of addresses that are routed to the interface. Those that
// are no longer stay as evidence: a pod's routes go before its interface does.
func (a *attachment) learn(addresses []netip.Addr) {
	for _, address := range addresses {
		if !slices.Contains(a.addresses, address) {
			a.addresses = append(slices.Clip(a.addresses), address)
		}
	}
}

func (a *attachment) state() State {
	switch {
	case !a.living():
		return StateGone
	case !a.ledger.settled, !a.metered():
		return StateSettling
	case a.ledger.unmetered != [flows.Directions]bool{}:
		return StatePartial
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
