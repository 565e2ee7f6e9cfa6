// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Role says whose interfaces a meter meters. Each role has maps, and so a pin
// path, of its own: a packet between a pod and the world passes both.
type Role int

// The roles.
const (
	// RolePods: interfaces whose other end is a pod's.
	RolePods Role = iota
	// RoleUplinks: interfaces that lead out of the node. Directions are the node's,
	// and nothing is compared with the interface's own counters, which on a device
	// that segments and merges are of other packets.
	RoleUplinks
)

// uplinksDirectory is where the pins of uplinks are, below those of pods.
const uplinksDirectory = "uplinks"

// UplinksPath returns the pin path of the uplinks beside that of the pods.
func UplinksPath(pinPath string) string { return filepath.Join(pinPath, uplinksDirectory) }

// ErrNoUplink is returned for globs of uplinks that include none.
var ErrNoUplink = errors.New("uplinks: no glob includes any, such as 'eth0'")

// UplinkStates returns the states that an uplink can be in.
func UplinkStates() []State {
	return []State{StateAttached, StateSettling, StatePartial, StateGone, StateRefused}
}

// Refusal is an interface that is wanted and could not be attached to. It is tried
// again.
type Refusal struct {
	Point   flows.Point
	Name    string
	Problem error
}

// Refusals returns them by name.
func (m *Meter) Refusals() []Refusal {
	m.links.mu.Lock()
	defer m.links.mu.Unlock()
	var all []Refusal
	for point, r := range m.links.retries {
		if r.problem != nil {
			all = append(all, Refusal{Point: flows.Point(point), Name: r.name, Problem: r.problem})
		}
	}
	slices.SortFunc(all, func(a, b Refusal) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// chooser chooses the links of one role.
type chooser struct {
	role          Role
	pods, uplinks selector
}

func (o *Options) selector() (c chooser, err error) {
	c.role = o.Role
	if c.pods, err = newSelector("interfaces", o.Interfaces); err != nil {
		return c, err
	}
	if c.uplinks, err = newSelector("uplinks", o.Uplinks); err != nil {
		return c, err
	}
	if o.Role == RoleUplinks && len(c.uplinks.include) == 0 {
		return c, ErrNoUplink
	}
	return c, nil
}

// wanted are the globs of this role.
func (o *Options) wanted() []string {
	if o.Role == RoleUplinks {
		return o.Uplinks
	}
	return o.Interfaces
}

// wants reports whether a link is to be metered by this role.
func (c chooser) wants(l netlink.Link) bool {
	if c.role == RoleUplinks {
		return c.isUplink(l)
	}
	return c.pods.wants(l) && !c.isUplink(l)
}

// isUplink reports whether a link is an uplink: one that a glob includes. The
// loopback, and a veth that leads into another network namespace, have to be
// named in full.
func (c chooser) isUplink(l netlink.Link) bool {
	attrs := l.Attrs()
	loopback := attrs.RawFlags&unix.IFF_LOOPBACK != 0
	if loopback || isPodVeth(l) {
		return slices.Contains(c.uplinks.include, attrs.Name) && !matches(c.uplinks.exclude, attrs.Name)
	}
	return matches(c.uplinks.include, attrs.Name) && !matches(c.uplinks.exclude, attrs.Name)
}

// contested reports whether an uplink would be a pod's interface otherwise.
func (c chooser) contested(l netlink.Link) bool {
	return c.role == RoleUplinks && c.pods.wants(l)
}

// announce says what may surprise about the choice of an uplink.
func (w *linkWatcher) announce(l netlink.Link) {
	if w.selector.contested(l) {
		w.log.Warn("an interface that --interfaces chooses too is metered as an uplink, and not as a pod's",
			"interface", l.Attrs().Name)
	}
}

// tellGap says that others have removed programs. What passes an uplink until they
// are there again is in no count, as there is nothing to tell it by.
func (w *linkWatcher) tellGap(name string) {
	if w.options.Role == RoleUplinks {
		w.log.Warn("somebody has detached the programs of an uplink, they are attached again: what passed meanwhile is not counted", "interface", name)
	} else {
		w.log.Warn("somebody has detached our programs, they are attached again", "interface", name)
	}
}

// side returns the direction that a pod's interface has at the hook where this
// role counts a direction: an uplink receives where a pod's host side transmits.
func (a *attacher) side(direction flows.Direction) flows.Direction {
	if a.uplinks {
		return 1 - direction
	}
	return direction
}

// newAttachment returns the attachment of a point before it is made. Of an uplink
// nothing is published but what is counted.
func (m *Meter) newAttachment(point uint32, seeded bool) *attachment {
	a := &attachment{point: point, attached: time.Now(), peerNamespace: -1, seeded: seeded}
	if m.options.Role == RoleUplinks {
		a.seeded, a.ledger.settled = false, true
	}
	return a
}

// look reads before a drain what the kernel tells of the interfaces besides what
// was counted. What cannot be read is left as it is known.
func (m *Meter) look(now time.Time) {
	if m.options.Role == RoleUplinks {
		if err := m.readCounted(); err != nil {
			m.log.Warn("read what was counted", "error", err)
		}
		return
	}
	if err := m.compareLedgers(now); err != nil {
		m.log.Warn("compare with the interfaces' own counters", "error", err)
	}
	if err := m.readAddresses(now); err != nil {
		m.log.Warn("look for the addresses behind interfaces", "error", err)
	}
}

// readCounted takes note, for the status, of what was counted of each interface.
// The caller holds the gate.
func (m *Meter) readCounted() error {
	counted, err := m.drainer.countedAll()
	if err != nil {
		return err
	}
	m.attachments.noteCounted(counted)
	return nil
}

// noteCounted takes note of what was counted at points that have nothing to be compared
// with.
func (r *registry) noteCounted(counted map[uint32]byDirection) {
	r.each(func(a *attachment) { a.ledger.last.ours = counted[a.point] })
}
