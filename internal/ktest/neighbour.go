// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"net"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// Introduce tells a device of the namespace for good which link address the
// peer's has, so that none is asked for when packets are sent to the address.
func (ns *Namespace) Introduce(tb testing.TB, device, address string, peer *Namespace, peerDevice string) {
	tb.Helper()
	neighbour := &netlink.Neigh{State: netlink.NUD_PERMANENT, IP: net.ParseIP(address)}
	err := peer.Do(func() error {
		l, err := netlink.LinkByName(peerDevice)
		if err == nil {
			neighbour.HardwareAddr = l.Attrs().HardwareAddr
		}
		return err
	})
	if err == nil {
		err = ns.Do(func() error {
			l, err := netlink.LinkByName(device)
			if err != nil {
				return err
			}
			neighbour.LinkIndex = l.Attrs().Index
			return netlink.NeighSet(neighbour)
		})
	}
	if err != nil {
		tb.Fatalf("introduce %s to %s: %v", device, address, err)
	}
}

// unresolved reports whether packets of the namespace wait until a neighbour's link address
// is known.
func unresolved() (bool, error) {
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	return slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool { return n.State == netlink.NUD_INCOMPLETE }), err
}
