// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"maps"
	"net/netip"
	"strings"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
)

// sighting is when a link was first seen: the zero time of one that was there when
// the watching began, as nobody knows since when.
type sighting struct {
	device string // see deviceOf
	at     time.Time
}

// see takes note of a link that is there.
func (w *linkWatcher) see(l netlink.Link) {
	point, device := uint32(l.Attrs().Index), deviceOf(l)
	if s, known := w.sightings[point]; known && sameDevice(s.device, device) {
		return
	}
	s := sighting{device: device}
	if w.greeted {
		s.at = time.Now()
	}
	w.sightings[point] = s
}

// appeared returns when a link was first seen.
func (w *linkWatcher) appeared(l netlink.Link) time.Time {
	s := w.sightings[uint32(l.Attrs().Index)]
	if !sameDevice(s.device, deviceOf(l)) {
		return time.Now() // another has its index since the event
	}
	return s.at
}

// unsee forgets the links that are gone.
func (w *linkWatcher) unsee(absent func(point uint32) bool) {
	maps.DeleteFunc(w.sightings, func(point uint32, _ sighting) bool { return absent(point) })
}

// candidate is a link that is not attached yet, as the domain knows interfaces.
func (w *linkWatcher) candidate(l netlink.Link, addresses []netip.Addr) flows.Interface {
	a := attachment{
		point: uint32(l.Attrs().Index), attached: time.Now(), appeared: w.appeared(l), addresses: addresses,
	}
	a.identify(l)
	return a.domain()
}

// hardwareAddress is that of a device, see deviceOf.
func hardwareAddress(device string) string {
	_, rest, _ := strings.Cut(device, " ")
	address, _, _ := strings.Cut(rest, " ")
	return address
}
