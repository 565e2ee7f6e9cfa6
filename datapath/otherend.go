// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// maxPeerAddresses bounds the addresses of one end that are kept, those of IPv4 first: a pod that may
// administer its network can give itself any number, and each packet's is compared with them.
const maxPeerAddresses = 256

// otherEnds returns by ifindex the addresses at the other ends of veths, in their network
// namespaces, of those of which none is known yet.
func (m *Meter) otherEnds(points []uint32) (map[uint32][]netip.Addr, error) {
	type end struct{ namespace, ifindex int }
	wanted := make(map[uint32]end)
	for _, point := range points {
		m.attachments.with(point, func(a *attachment) {
			if a != nil && len(a.peerAddresses) == 0 && a.peerIndex > 0 {
				wanted[point] = end{a.peerNamespace, a.peerIndex}
			}
		})
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	sides, err := openPodSides()
	if err != nil {
		return nil, err
	}
	defer sides.close()
	if err := sides.checkStrictly(); err != nil {
		return nil, err
	}
	found := make(map[uint32][]netip.Addr, len(wanted))
	for point, e := range wanted {
		addresses, err := sides.addresses(e.namespace, e.ifindex)
		if err != nil { // it may just have gone
			m.log.Debug("read the addresses of a pod's end", "ifindex", point, "error", err)
			continue
		}
		found[point] = addresses
	}
	return found, nil
}

// checkStrictly makes the kernel heed what a dump of addresses asks for: else it
// would answer with this namespace's own.
func (p podSides) checkStrictly() error {
	fd := p[unix.NETLINK_ROUTE].Socket.GetFd()
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
		return fmt.Errorf("set strict checks of netlink socket: %w", err)
	}
	return nil
}

// addresses returns the first of those of a device of the network namespace with the given id, for
// which CAP_NET_ADMIN is enough.
func (p podSides) addresses(namespace, ifindex int) (all []netip.Addr, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		request := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		request.Sockets = p
		message := nl.NewIfAddrmsg(family)
		message.Index = uint32(ifindex)
		request.AddData(message)
		request.AddData(nl.NewRtAttr(unix.IFA_TARGET_NETNSID, nl.Uint32Attr(uint32(namespace))))
		err := request.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWADDR, func(answer []byte) bool {
			if address, ok := addressOf(answer, ifindex, namespace); ok && len(all) < maxPeerAddresses {
				all = append(all, address)
			}
			return len(all) < maxPeerAddresses
		})
		if err != nil {
			return nil, fmt.Errorf("list the addresses of a pod's end: %w", err)
		}
	}
	return all, nil
}

// addressOf reads an answer, if it is about that device of that namespace.
func addressOf(answer []byte, ifindex, namespace int) (address netip.Addr, ok bool) {
	if len(answer) < unix.SizeofIfAddrmsg {
		return address, false
	}
	attributes, err := nl.ParseRouteAttr(answer[unix.SizeofIfAddrmsg:])
	if err != nil || int(nl.DeserializeIfAddrmsg(answer).Index) != ifindex {
		return address, false
	}
	found, local := netip.Addr{}, false
	for _, attribute := range attributes {
		switch attribute.Attr.Type {
		case unix.IFA_TARGET_NETNSID:
			ok = int(nl.NativeEndian().Uint32(attribute.Value)) == namespace
		case unix.IFA_LOCAL:
			found, local = addressFrom(attribute.Value), true
		case unix.IFA_ADDRESS: // of a point-to-point device the peer's
			if !local {
				found = addressFrom(attribute.Value)
			}
		}
	}
	return found, ok && found.IsValid()
}

func addressFrom(value []byte) netip.Addr {
	address, _ := netip.AddrFromSlice(value)
	return address.Unmap()
}
