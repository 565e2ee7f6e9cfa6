// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"net"
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
