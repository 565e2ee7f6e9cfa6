// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// How long after an interface was attached its routes and neighbours are looked
// at: CNI plugins make them soon after, and some never do.
const (
	routesSettle = time.Minute
	routesLatest = 10 * time.Minute
)

// servicesDevice is where kube-proxy's mode ipvs puts the addresses of all Services,
// whatever they claim (defaultDummyDevice in pkg/proxy/ipvs of kubernetes).
const servicesDevice = "kube-ipvs0"

// HostAddresses returns all addresses of this network namespace's interfaces, but those
// of Services.
func HostAddresses() ([]netip.Addr, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	services := 0
	if l, err := netlink.LinkByName(servicesDevice); err == nil { // else there is none
		services = l.Attrs().Index
	}
	var addresses []netip.Addr
	for _, a := range list {
		if a.LinkIndex == services {
			continue
		}
		if address, ok := netip.AddrFromSlice(a.IP); ok {
			addresses = append(addresses, address.Unmap())
		}
	}
	return addresses, nil
}

// readAddresses looks up which addresses the host routes to one interface alone, and which
// the other ends have, for the interfaces of which that may still change.
func (m *Meter) readAddresses(now time.Time) error {
	young := m.attachments.points(func(a *attachment) bool {
		age := now.Sub(a.attached)
		return a.living() && (age < routesSettle || len(a.addresses) == 0 && age < routesLatest || !a.endRead)
	})
	if len(young) == 0 {
		return nil
	}
	var found, ends map[uint32][]netip.Addr
	err := m.options.within(func() (err error) {
		if found, err = routedAddresses(); err == nil {
			ends, err = m.otherEnds(young)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, point := range young {
		m.attachments.with(point, func(a *attachment) {
			if a != nil {
				a.learn(found[point])
				a.learnOtherEnd(ends[point])
			}
		})
	}
	return nil
}

// routedAddresses returns by ifindex the destinations of /32 and /128 routes
// without a gateway, and the permanent neighbours: those that are behind one
// interface alone. The gateway that plugins give to each pod's host end is the
// host's own, and with IPv6 has a route to each.
func routedAddresses() (map[uint32][]netip.Addr, error) {
	found, err := destinations()
	if err != nil {
		return nil, err
	}
	own, err := HostAddresses()
	if err != nil {
		return nil, err
	}
	times := make(map[netip.Addr]int)
	for _, address := range own {
		times[address]++
	}
	for _, addresses := range found {
		for _, address := range addresses {
			times[address]++
		}
	}
	for index := range found {
		found[index] = slices.DeleteFunc(found[index], func(a netip.Addr) bool { return times[a] > 1 })
	}
	return found, nil
}

// destinations returns by ifindex what single addresses are routed to an interface
// or are its permanent neighbours.
func destinations() (map[uint32][]netip.Addr, error) {
	found := make(map[uint32][]netip.Addr)
	add := func(index int, ip net.IP) {
		address, ok := netip.AddrFromSlice(ip)
		if address = address.Unmap(); ok && !slices.Contains(found[uint32(index)], address) {
			found[uint32(index)] = append(found[uint32(index)], address)
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Gw != nil || r.Type != unix.RTN_UNICAST || advertised(&r) {
			continue
		}
		if ones, bits := r.Dst.Mask.Size(); bits > 0 && ones == bits {
			add(r.LinkIndex, r.Dst.IP)
		}
	}
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighbours {
		if n.State&netlink.NUD_PERMANENT != 0 {
			add(n.LinkIndex, n.IP)
		}
	}
	return found, nil
}

// advertised reports whether a route may come of a router advertisement, which any pod can
// send: of the prefixes in it the kernel makes routes of its own protocol, as of the
// addresses of the host (addrconf_prefix_rcv in net/ipv6/addrconf.c), of its route
// information such of RTPROT_RA.
func advertised(r *netlink.Route) bool {
	switch r.Protocol {
	case unix.RTPROT_RA, unix.RTPROT_REDIRECT:
		return true
	case unix.RTPROT_KERNEL:
		return r.Dst.IP.To4() == nil
	}
	return false
}
