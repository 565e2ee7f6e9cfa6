// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"cmp"
	"net/netip"
	"testing"
)

// NewNode makes a network namespace that plays a node. Pods are joined to it by
// [Namespace.Pod].
func NewNode(tb testing.TB) *Namespace {
	tb.Helper()
	node := NewNamespace(tb)
	node.withoutIPv6(tb)
	return node
}

// withoutIPv6 switches IPv6 off on devices that the namespace gets from now on: its
// discovery speaks whenever it likes.
func (ns *Namespace) withoutIPv6(tb testing.TB) {
	tb.Helper()
	ns.Sysctl(tb, "net/ipv6/conf/default/disable_ipv6", "1")
}

// remembers has a device ask once who its neighbours are: by default it asks again five
// seconds later, which is a time of its own.
func (ns *Namespace) remembers(tb testing.TB, device string) {
	tb.Helper()
	ns.Sysctl(tb, "net/ipv4/neigh/"+device+"/delay_first_probe_time", "3600") // seconds
}

// PodOptions says how a pod is joined to its node. The zero value is a good one.
type PodOptions struct {
	// Device is the name of the node's end of the veth, veth0 if empty. The pod's is eth0.
	Device string
	// Index is the ifindex of the node's end, any if 0.
	Index int
	// Gateway and Address are the addresses of the node's end and of the pod's with their
	// prefix lengths: 198.51.100.1/24 and 198.51.100.2/24 if both are empty. NoAddress
	// leaves them out.
	Gateway, Address string
	NoAddress        bool
	// Introduced ends have each other's link address for good, so that nobody asks for it
	// at a time of his own: on the wire is what the test sends, and nothing else.
	Introduced bool
	// IPv6 stays on if true. It is off otherwise, on the node's later devices as well: its
	// discovery speaks whenever it likes.
	IPv6 bool
}

// Pod is a network namespace that is joined to a node by a veth.
type Pod struct {
	*Namespace
	Node *Namespace
	// Device and Index are the name and the ifindex of the node's end.
	Device string
	Index  int
	// Gateway and IP are the addresses of the node's end and of the pod's.
	Gateway, IP string
}

// Pod makes a network namespace and joins it to this one, a node.
func (ns *Namespace) Pod(tb testing.TB, o PodOptions) *Pod {
	tb.Helper()
	p := &Pod{Namespace: NewNamespace(tb), Node: ns, Device: cmp.Or(o.Device, "veth0")}
	if !o.IPv6 {
		ns.withoutIPv6(tb)
		p.withoutIPv6(tb)
	}
	p.Index = ns.VethAt(tb, o.Index, p.Device, p.Namespace, "eth0")
	ns.remembers(tb, p.Device)
	p.remembers(tb, "eth0")
	if o.NoAddress {
		return p
	}
	gateway, address := o.Gateway, o.Address
	if gateway == "" && address == "" {
		gateway, address = "198.51.100.1/24", "198.51.100.2/24"
	}
	ns.Address(tb, p.Device, gateway)
	p.Address(tb, "eth0", address)
	p.Gateway, p.IP = netip.MustParsePrefix(gateway).Addr().String(), netip.MustParsePrefix(address).Addr().String()
	if o.Introduced {
		ns.Introduce(tb, p.Device, p.IP, p.Namespace, "eth0")
		p.Introduce(tb, "eth0", p.Gateway, ns, p.Device)
	}
	return p
}
