// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
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
	StateShadowed State = "shadowed" // somebody's program before ours hides packets from it
	StateBypassed State = "bypassed" // packets reach the pod round the host's end of its veth
	StateDiffers  State = "differs"  // the interface counts other packets than we do
	StateUnknown  State = "unknown"  // packets may reach the pod round us, and nobody counts them
	StateGone     State = "gone"     // its last packets are being drained

	// StateRefused is an uplink's that could not be attached to.
	StateRefused State = "refused"
)

// States returns all states.
func States() []State {
	return []State{StateAttached, StateSettling, StatePartial, StateShadowed, StateBypassed, StateDiffers, StateUnknown, StateGone}
}

// Partly reports whether part of what crosses the interface is known from counters
// of the kernel alone.
func (s State) Partly() bool {
	return s == StatePartial || s == StateShadowed || s == StateBypassed
}

// attachment is a metered interface, from before its programs are attached until
// its last packet has been published.
type attachment struct {
	point         uint32
	name          string
	device        string // tells it from another device with its index, see deviceOf
	podUID        string // see flows.Interface
	hooks         hooks  // nil before and after the time in which they are attached
	mode          AttachMode
	attached      time.Time
	appeared      time.Time // see flows.Interface
	gone          time.Time
	peerNamespace int
	headerless    bool
	peerIndex     int // of a veth's other end in another network namespace, else 0
	addresses     []netip.Addr
	peerAddresses []netip.Addr // see flows.Interface
	// endRead is whether this meter has read the other end's addresses.
	endRead bool
	// seeded is whether what passed before the attachment is published: not for
	// an interface that was there when the meter was made.
	seeded bool
	// resumed is whether the device had an attachment before.
	resumed bool
	ledger  ledger
	bypass  bypass
	// blind is whether the other end's counters could not be read.
	blind bool
	// doubtful is whether nobody can tell if it is bypassed.
	doubtful bool
	// seeds wait to be published: what is known from the ledger alone.
	seeds byDirection
	// drains is how many are left until the point can be forgotten.
	drains int
	// vanished is whether the device itself is gone, and not only the attachment.
	vanished bool
	// mayReturn is whether a device that vanished may be in another network
	// namespace.
	mayReturn bool
}

func (a *attachment) living() bool { return a.gone.IsZero() }

// metered reports whether the programs are attached.
func (a *attachment) metered() bool { return a.living() && a.hooks != hooks{} }

// identify takes note of what a link tells of itself.
func (a *attachment) identify(l netlink.Link) {
	attrs := l.Attrs()
	a.name, a.device, a.peerNamespace, a.peerIndex = attrs.Name, deviceOf(l), attrs.NetNsID, 0
	a.headerless = headerless(l)
	if _, index, ok := farEnd(l); ok {
		a.peerIndex = index
	}
}

// deviceOf is by what a device is told from a later one with its index. Hardware
// addresses alone would not do: some CNI plugins give all veths the same.
func deviceOf(l netlink.Link) string {
	attrs := l.Attrs()
	return fmt.Sprintf("%s %s %d", attrs.Name, attrs.HardwareAddr, attrs.ParentIndex)
}

// sameDevice reports whether two devices that have had one ifindex are the same,
// as far as that can be told: names may change.
func sameDevice(a, b string) bool {
	_, a, _ = strings.Cut(a, " ")
	_, b, _ = strings.Cut(b, " ")
	return a == b
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
	if l := &a.ledger; !a.seeded && !l.settled { // from above: none of it is to be published
		l.settle(l.last.second.sub(l.last.ours).sub(l.base))
	}
	known := a.ledger.abandon()
	if a.seeded {
		a.seeds = a.seeds.add(known)
	}
	a.gone, a.drains = now, drainsAfterGone
}

// read takes a reading of the ledger, unless it is of another device that has the
// ifindex by now.
func (a *attachment) read(r reading) {
	if r.device != a.device {
		return
	}
	settled := a.ledger.settled
	var known byDirection
	if a.ledger.stuck(&r) {
		known = a.settleNow(&r)
	} else {
		known = a.ledger.read(r)
	}
	if a.seeded || settled {
		a.seeds = a.seeds.add(known)
	}
}

// settleNow settles a ledger while packets come that are hidden from us. Where what
// passed before is seeded it is estimated from below, as the rest will be found
// hidden; else from above, as none of it is to be published.
func (a *attachment) settleNow(r *reading) byDirection {
	l := &a.ledger
	had := r.second
	if a.seeded {
		had = l.last.second
	}
	known := l.settle(had.sub(r.ours).sub(l.base))
	for d, ahead := range r.ahead { // where nobody hides the rest, it is looked for
		l.closing[d] = a.seeded && len(ahead) == 0 && !l.unmetered[d]
	}
	l.ahead, l.last = r.ahead, *r
	return known
}

// accounted returns what of the interface's own counters needs no seeding any
// more, given what the programs counted in all.
func (a *attachment) accounted(counted byDirection) byDirection {
	sum := a.ledger.explained(counted).add(a.ledger.apart)
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

// learnOtherEnd takes note of the addresses at the other end. Those that were there first
// stay: later ones may be what a pod gave itself. Link-local ones come before others.
func (a *attachment) learnOtherEnd(addresses []netip.Addr) {
	a.endRead = true
	global := func(address netip.Addr) bool { return !address.IsLinkLocalUnicast() }
	if len(a.peerAddresses) == 0 && slices.ContainsFunc(addresses, global) {
		a.peerAddresses = addresses
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
	case a.ledger.shadowed != [flows.Directions]bool{}:
		return StateShadowed
	case a.bypass.lately(a.ledger.last.at):
		return StateBypassed
	case a.ledger.difference != [flows.Directions]int64{}:
		return StateDiffers
	case a.doubtful:
		return StateUnknown
	}
	return StateAttached
}

func (a *attachment) domain() flows.Interface {
	return flows.Interface{
		Point: flows.Point(a.point), Name: a.name, PodUID: a.podUID, Attached: a.attached, Gone: a.gone,
		Appeared: a.appeared, HardwareAddr: hardwareAddress(a.device),
		PeerNamespace: a.peerNamespace, Addresses: a.addresses, PeerAddresses: a.peerAddresses,
	}
}
