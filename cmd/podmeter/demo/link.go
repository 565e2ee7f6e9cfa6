// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func (n *namespace) up(device string) error {
	l, err := n.links.LinkByName(device)
	if err == nil {
		err = n.links.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set %s up in %s: %w", device, n.name, err)
	}
	return nil
}

// veth makes a pair of devices, both ends here and up. It returns both with their
// attributes.
func (n *namespace) veth(device, other string) (first, second netlink.Link, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = device
	if err := n.links.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: other}); err != nil {
		return nil, nil, fmt.Errorf("make veth %s in %s: %w", device, n.name, err)
	}
	first, err = n.links.LinkByName(device)
	if err == nil {
		second, err = n.links.LinkByName(other)
	}
	err = errors.Join(err, n.up(device), n.up(other))
	if err != nil {
		return nil, nil, errors.Join(err, n.remove(device))
	}
	return first, second, nil
}

// move takes a device to another namespace, up, and returns it as it is there.
// It keeps its counters.
func (n *namespace) move(l netlink.Link, to *namespace) (netlink.Link, error) {
	device := l.Attrs().Name
	if err := n.links.LinkSetNsFd(l, int(to.handle)); err != nil {
		return nil, fmt.Errorf("move %s from %s to %s: %w", device, n.name, to.name, err)
	}
	moved, err := to.links.LinkByName(device)
	if err != nil {
		return nil, fmt.Errorf("find %s in %s: %w", device, to.name, err)
	}
	return moved, to.up(device)
}

// carrierWithin bounds what a busy machine's kernel takes until a device can send.
const carrierWithin = 5 * time.Second

// ready waits until a device that is up can send: the kernel notices on its own time that
// the other end of a veth is up, and drops until then what is sent.
func (n *namespace) ready(device string) error {
	for deadline := time.Now().Add(carrierWithin); ; time.Sleep(time.Millisecond) {
		l, err := n.links.LinkByName(device)
		switch {
		case err != nil:
			return fmt.Errorf("find %s in %s: %w", device, n.name, err)
		case l.Attrs().OperState == netlink.OperUp:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("wait for %s in %s: it is %s after %v", device, n.name, l.Attrs().OperState, carrierWithin)
		}
	}
}

// remove deletes a device; one that is not there is no error.
func (n *namespace) remove(device string) error {
	l, err := n.links.LinkByName(device)
	if err == nil {
		err = n.links.LinkDel(l)
	}
	if err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %s: %w", device, err)
	}
	return nil
}

// host returns the network that holds the one address.
func host(address netip.Addr) *net.IPNet { return network(netip.PrefixFrom(address, address.BitLen())) }

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// address gives a device an address that can be used at once.
func (n *namespace) address(l netlink.Link, prefix netip.Prefix) error {
	addr := &netlink.Addr{IPNet: network(prefix)}
	if prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := n.links.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("add address %s in %s: %w", prefix, n.name, err)
	}
	return nil
}

// neighbour tells for good which hardware address a neighbour has, so that
// nobody asks.
func (n *namespace) neighbour(l netlink.Link, address netip.Addr, hardware net.HardwareAddr) error {
	err := n.links.NeighSet(&netlink.Neigh{
		LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: address.AsSlice(), HardwareAddr: hardware,
	})
	if err != nil {
		return fmt.Errorf("add neighbour %s in %s: %w", address, n.name, err)
	}
	return nil
}

// route sends a destination out of a device; an invalid gateway is none.
func (n *namespace) route(l netlink.Link, destination *net.IPNet, gateway netip.Addr) error {
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: destination}
	if gateway.IsValid() {
		r.Gw, r.Flags = gateway.AsSlice(), int(netlink.FLAG_ONLINK)
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := n.links.RouteAdd(r); err != nil {
		return fmt.Errorf("add route to %s in %s: %w", destination, n.name, err)
	}
	return nil
}

// ownOf is what an interface itself has counted, as its pod sees directions: what the
// host's end of a veth receives, its pod transmits.
func ownOf(l netlink.Link) (own verify.Pair) {
	if s := l.Attrs().Statistics; s != nil {
		own[flows.Transmit] = flows.Counters{Bytes: s.RxBytes, Packets: s.RxPackets}
		own[flows.Receive] = flows.Counters{Bytes: s.TxBytes, Packets: s.TxPackets}
	}
	return own
}

// kernel reads the counters of every device of the namespace.
func (n *namespace) kernel() (verify.Kernel, error) {
	links, err := n.links.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces of %s: %w", n.name, err)
	}
	kernel := make(verify.Kernel, len(links))
	for _, l := range links {
		kernel[l.Attrs().Index] = verify.Device{Name: l.Attrs().Name, Own: ownOf(l)}
	}
	return kernel, nil
}

// ledgers reads the same, by name.
func (n *namespace) ledgers() (map[string]verify.Pair, error) {
	kernel, err := n.kernel()
	own := make(map[string]verify.Pair, len(kernel))
	for _, device := range kernel {
		own[device.Name] = device.Own
	}
	return own, err
}
