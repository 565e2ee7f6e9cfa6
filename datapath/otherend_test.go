// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/identity"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// seenOf returns an interface as the domain knows it.
func (m *testMeter) seenOf(name string) (i flows.Interface) {
	m.attachments.each(func(a *attachment) {
		if a.name == name {
			i = a.domain()
		}
	})
	return i
}

// The addresses at a veth's other end are read in its own namespace, where another device
// may have the ifindex of one here, and are those that were there first.
func TestReadsTheAddressesOfTheOtherEnd(t *testing.T) {
	ktest.Privileged(t)
	host, pod := ktest.NewNamespace(t), ktest.NewNamespace(t)
	host.Veth(t, "veth0", pod, "eth0")
	host.Veth(t, "empty0", ktest.NewNamespace(t), "eth0")
	for _, device := range []string{"veth0", "empty0"} {
		host.Address(t, device, "198.51.100.1/32")
		host.Address(t, device, "2001:db8::1/128")
	}
	pod.Address(t, "eth0", "198.51.100.7/24")
	pod.Address(t, "eth0", "2001:db8:0:1::7/64")
	m := startMeter(t, host, nil)
	global := func(name string) []netip.Addr {
		return slices.DeleteFunc(slices.Clone(m.seenOf(name).PeerAddresses), netip.Addr.IsLinkLocalUnicast)
	}
	want := []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:0:1::7")}
	ktest.Await(t, "the other end's addresses", func() bool { return slices.Equal(global("veth0"), want) })
	pod.Address(t, "eth0", "198.51.100.8/24")
	drains := m.LastDrain().Count
	ktest.Await(t, "some drains", func() bool { return m.LastDrain().Count > drains+3 })
	if got := global("veth0"); !slices.Equal(got, want) {
		t.Errorf("after the pod gave itself another: got %v, want %v", got, want)
	}
	if got := global("empty0"); len(got) != 0 {
		t.Errorf("an end without addresses: got %v, want none", got)
	}
}

// A pod that gives itself ever more addresses has some of them known, its first ones.
func TestAddressesOfTheOtherEndAreBounded(t *testing.T) {
	ktest.Privileged(t)
	host, pod := ktest.NewNamespace(t), ktest.NewNamespace(t)
	host.Veth(t, "veth0", pod, "eth0")
	pod.Address(t, "eth0", "198.51.100.7/32")
	for i := range maxPeerAddresses + 44 {
		pod.Address(t, "eth0", fmt.Sprintf("10.9.%d.%d/32", i/250, 1+i%250))
	}
	pod.Address(t, "eth0", "2001:db8:0:1::7/64")
	m := startMeter(t, host, nil)
	ktest.Await(t, "the other end's addresses", func() bool { return len(m.seenOf("veth0").PeerAddresses) > 0 })
	got := m.seenOf("veth0").PeerAddresses
	if len(got) != maxPeerAddresses || got[0] != netip.MustParseAddr("198.51.100.7") {
		t.Errorf("got %d addresses from %v on, want %d from 198.51.100.7 on", len(got), got[0], maxPeerAddresses)
	}
}

// What a pod announces about itself is no evidence: neighbours that are learned from ARP and
// neighbour discovery, and routes that the kernel makes of router advertisements.
func TestWhatAPodAnnouncesIsNoRoute(t *testing.T) {
	ktest.Privileged(t)
	host, pod := ktest.NewNamespace(t), ktest.NewNamespace(t)
	index := host.Veth(t, "veth0", pod, "eth0")
	for name, value := range map[string]string{"net/ipv6/conf/veth0/accept_ra": "2", "net/ipv6/conf/veth0/accept_dad": "0", "net/ipv4/conf/veth0/arp_accept": "1"} {
		host.Sysctl(t, name, value)
	}
	host.Address(t, "veth0", "198.51.100.1/24")
	host.Address(t, "veth0", "2001:db8::1/64")
	victim4, victim6 := netip.MustParseAddr("198.51.100.66"), netip.MustParseAddr("2001:db8:0:9::66")
	neighbour6 := netip.MustParseAddr("2001:db8::67")
	injector := pod.NewInjector(t, "eth0", false)
	announced := func() (routed, four, six bool) {
		err := host.Do(func() error {
			routes, err := netlink.RouteList(nil, netlink.FAMILY_V6)
			if err != nil {
				return err
			}
			routed = slices.ContainsFunc(routes, func(r netlink.Route) bool {
				return r.Dst != nil && r.Dst.IP.Equal(victim6.AsSlice()) && r.LinkIndex == index
			})
			neighbours, err := netlink.NeighList(index, netlink.FAMILY_ALL)
			for _, n := range neighbours {
				four, six = four || n.IP.Equal(victim4.AsSlice()), six || n.IP.Equal(neighbour6.AsSlice())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return routed, four, six
	}
	ktest.Await(t, "the host believes the announcements", func() bool {
		if _, err := injector.Send(advertisement(victim6), solicitation(neighbour6, netip.MustParseAddr("2001:db8::1")), announcement(victim4)); err != nil {
			t.Fatal(err)
		}
		routed, four, six := announced()
		return routed && four && six
	})
	var found map[uint32][]netip.Addr
	if err := host.Do(func() (err error) { found, err = routedAddresses(); return err }); err != nil {
		t.Fatal(err)
	}
	if got := found[uint32(index)]; len(got) != 0 {
		t.Errorf("got %v, want nothing", got)
	}
	routeTo(t, host, index, "2001:db8:0:9::67") // what the node's administration makes counts
	if err := host.Do(func() (err error) { found, err = routedAddresses(); return err }); err != nil {
		t.Fatal(err)
	}
	if got, want := found[uint32(index)], []netip.Addr{netip.MustParseAddr("2001:db8:0:9::67")}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

var (
	podMAC     = []byte{2, 0, 0, 0, 0, 1} // the source of ktest.Ethernet
	linkLocal  = netip.MustParseAddr("fe80::1")
	everyNode  = netip.MustParseAddr("ff02::1")
	linkOption = append([]byte{1, 1}, podMAC...)
)

// icmpv6 is a frame to every node with a message of ICMPv6 and its checksum (RFC 4443).
func icmpv6(source, destination netip.Addr, message []byte) []byte {
	ip := ktest.IPv6(source, destination, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(ip[4:], uint16(len(message)))
	ip[7] = 255 // the hop limit that neighbour discovery wants
	sum := uint32(len(message)) + unix.IPPROTO_ICMPV6
	for _, part := range [][]byte{source.AsSlice(), destination.AsSlice(), message} {
		for n := 0; n < len(part); n += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[n:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	frame := ktest.Packet(ktest.Ethernet(unix.ETH_P_IPV6), ip, message)
	copy(frame, []byte{0x33, 0x33, 0, 0, 0, 1})
	return frame
}

// advertisement is a router's that says that a single address is on the link (RFC 4861).
func advertisement(address netip.Addr) []byte {
	const lifetime = "\x00\x00\x0e\x10"
	message := append([]byte{134, 0, 0, 0, 64, 0, 0, 0}, make([]byte, 8)...)
	message = append(message, 3, 4, 128, 0x80)
	message = append(message, lifetime+lifetime+"\x00\x00\x00\x00"...)
	return icmpv6(linkLocal, everyNode, append(message, address.AsSlice()...))
}

// solicitation asks for the link address of one address, and tells that of another.
func solicitation(from, of netip.Addr) []byte {
	message := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, of.AsSlice()...)
	return icmpv6(from, everyNode, append(message, linkOption...))
}

// announcement is an ARP request for the own address (RFC 5227).
func announcement(address netip.Addr) []byte {
	arp := ktest.Packet([]byte{0, 1, 8, 0, 6, 4, 0, 1}, podMAC, address.AsSlice(), make([]byte, 6), address.AsSlice())
	frame := ktest.Packet(ktest.Ethernet(unix.ETH_P_ARP), arp)
	copy(frame, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	return frame
}

// addBridge makes the bridge cni0.
func addBridge(t *testing.T, host *ktest.Namespace) {
	t.Helper()
	err := host.Do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
		bridge.Name, bridge.Flags = "cni0", net.FlagUp
		return netlink.LinkAdd(bridge)
	})
	if err != nil {
		t.Fatalf("make bridge: %v", err)
	}
}

// bridged makes a pod's interface on a bridge, as the CNI plugin does, with an address.
func bridged(t *testing.T, host *ktest.Namespace, name string, addresses ...string) (pod *ktest.Namespace, index int) {
	t.Helper()
	pod = ktest.NewNamespace(t)
	index = host.Veth(t, name, pod, "eth0")
	err := host.Do(func() error {
		bridge, err := netlink.LinkByName("cni0")
		if err != nil {
			return err
		}
		return netlink.LinkSetMasterByIndex(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, bridge.Attrs().Index)
	})
	if err != nil {
		t.Fatalf("put %s on the bridge: %v", name, err)
	}
	for _, address := range addresses {
		pod.Address(t, "eth0", address)
	}
	return pod, index
}

// On a bridge, where nothing is routed to a pod alone and no CNI result is there, a pod that
// sends from another's addresses, before that or itself has sent anything, is not taken
// for it: each interface's bytes are its own pod's, to the byte.
func TestSpoofersOnABridge(t *testing.T) {
	ktest.Privileged(t)
	host := ktest.NewNamespace(t)
	addBridge(t, host)
	host.Address(t, "cni0", "198.51.100.1/24")
	cache := identity.NewCache(identity.CacheOptions{Node: "here"})
	table := flows.NewTable(flows.TableOptions{FlowLimit: 100, ExternalLimit: 100, FlowIdle: time.Hour, SeriesGrace: time.Hour})
	publisher := flows.NewPublisher(flows.PublisherOptions{Table: table, Directory: cache,
		Addresses: cache, Binder: flows.AddressBinder{Directory: cache}, Logger: slog.New(slog.DiscardHandler)})
	m := startMeter(t, host, func(o *Options) { o.Sink, o.Interfaces = publisher, []string{"veth*"} })
	ktest.Await(t, "first listing", func() bool { return m.LastDrain().Count > 0 })
	started := time.Now().Add(-time.Second)
	liar, liarIndex := bridged(t, host, "veth0", "198.51.100.6/24") // before the victim in every order
	victim, victimIndex := bridged(t, host, "veth1", "198.51.100.7/24", "2001:db8::7/64")
	m.awaitState(t, "veth0", StateAttached)
	m.awaitState(t, "veth1", StateAttached)
	from4, from6 := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")
	peer4, peer6 := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:9::9")
	var spoofed [][]byte
	for range 25 {
		spoofed = append(spoofed,
			ktest.Packet(ktest.Ethernet(unix.ETH_P_IP), ktest.IPv4(from4, peer4, flows.ProtocolUDP), ktest.Ports(7, 9)),
			ktest.Packet(ktest.Ethernet(unix.ETH_P_IPV6), ktest.IPv6(from6, peer6, flows.ProtocolUDP), ktest.Ports(7, 9)))
	}
	inject(t, liar, "eth0", false, spoofed)
	for name, addresses := range map[string][]netip.Addr{"victim": {from4, from6}, "liar": {netip.MustParseAddr("198.51.100.6")}} {
		cache.SetPod(&identity.Pod{Pod: flows.Pod{UID: "uid-" + name, Namespace: "ns", Name: name, Node: "here"},
			Addresses: addresses, Started: started})
	}
	ktest.Await(t, "both are bound", func() bool { return len(publisher.Pods()) == 2 })
	inject(t, liar, "eth0", false, spoofed)
	victim.Send(t, "198.51.100.1:9", 100, 25)
	for name, index := range map[string]int{"liar": liarIndex, "victim": victimIndex} {
		if got := publisher.Pods()[flows.Point(index)]; got == nil || got.Name != name {
			t.Errorf("the interface of the %s: got %+v", name, got)
		}
		host.DeleteLink(t, map[string]string{"liar": "veth0", "victim": "veth1"}[name])
	}
	ktest.Await(t, "all is drained", func() bool { return len(m.Interfaces()) == 0 })
	sent := map[string]flows.Counters{}
	for _, row := range table.Snapshot().Pods {
		sent[row.Pod] = row.Counters[flows.Transmit]
	}
	if got, least := sent["liar"].Packets, uint64(2*len(spoofed)); got < least {
		t.Errorf("liar: got %d packets, want the %d that it sent", got, least)
	}
	if got := sent["victim"].Packets; got < 25 || got >= uint64(len(spoofed)) {
		t.Errorf("victim: got %d packets, want its own 25 and none of the %d spoofed ones", got, 2*len(spoofed))
	}
	want := map[string]uint64{"victim": 0}
	for _, frame := range spoofed {
		want["liar"] += 2 * uint64(len(frame))
	}
	for _, row := range table.Snapshot().Foreign {
		if got := row.Counters[flows.Transmit].Bytes; got != want[row.Pod] {
			t.Errorf("%s: got %d bytes from addresses of others, want %d", row.Pod, got, want[row.Pod])
		}
	}
	if stats := publisher.Stats(); stats.ConservationErrorBytes+stats.LostUnboundBytes+stats.UnboundBytes != 0 {
		t.Errorf("got %+v, want nothing lost nor waiting", stats)
	}
}
