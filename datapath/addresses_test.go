// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
)

// As the CNI plugin ptp leaves two pods in a dual stack: the gateway's addresses
// are on both host ends, and IPv6 has a route to it on each.
func TestRoutedToOneInterfaceAlone(t *testing.T) {
	t.Parallel()
	ktest.Privileged(t)
	host := ktest.NewNamespace(t)
	pods := map[string][]string{
		"veth1": {"198.51.100.2", "2001:db8::2"},
		"veth2": {"198.51.100.3", "2001:db8::3"},
	}
	index := make(map[string]int)
	for name, addresses := range pods {
		index[name] = host.Veth(t, name, ktest.NewNamespace(t), "eth0")
		host.Address(t, name, "198.51.100.1/32")
		host.Address(t, name, "2001:db8::1/128")
		for _, address := range addresses {
			routeTo(t, host, index[name], address)
		}
	}
	var found map[uint32][]netip.Addr
	if err := host.Do(func() (err error) { found, err = routedAddresses(); return err }); err != nil {
		t.Fatal(err)
	}
	for name, addresses := range pods {
		got := found[uint32(index[name])]
		want := []netip.Addr{netip.MustParseAddr(addresses[0]), netip.MustParseAddr(addresses[1])}
		if slices.SortFunc(got, netip.Addr.Compare); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// With kube-proxy's mode ipvs the addresses of Services are on a device of the host, also
// what a Service only claims to have.
func TestServicesAddressesAreNotTheHosts(t *testing.T) {
	ktest.Privileged(t)
	host := ktest.NewNamespace(t)
	host.Veth(t, servicesDevice, ktest.NewNamespace(t), "eth0")
	host.Veth(t, "veth1", ktest.NewNamespace(t), "eth0")
	host.Address(t, servicesDevice, "203.0.113.9/32")
	host.Address(t, servicesDevice, "2001:db8::9/128")
	host.Address(t, "veth1", "198.51.100.1/32")
	var got []netip.Addr
	if err := host.Do(func() (err error) { got, err = HostAddresses(); return err }); err != nil {
		t.Fatal(err)
	}
	got = slices.DeleteFunc(got, func(a netip.Addr) bool { return a.IsLoopback() || a.IsLinkLocalUnicast() })
	if want := []netip.Addr{netip.MustParseAddr("198.51.100.1")}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// routeTo routes a single address to a device of a namespace.
func routeTo(t testing.TB, ns *ktest.Namespace, index int, address string) {
	t.Helper()
	ip := netip.MustParseAddr(address)
	to := &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
	err := ns.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: to, Scope: netlink.SCOPE_LINK})
	})
	if err != nil {
		t.Fatalf("route %s: %v", address, err)
	}
}
