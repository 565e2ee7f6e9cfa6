// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// flowBook also remembers what each flow had, without the ports of senders.
type flowBook struct {
	*book
	lock  sync.Mutex
	flows map[flows.Key]flows.Counters
}

func (f *flowBook) Publish(epoch *flows.Epoch) error {
	f.lock.Lock()
	defer f.lock.Unlock()
	for _, record := range epoch.Records {
		key := record.Key
		key.SourcePort = 0
		sum := f.flows[key]
		sum.Add(record.Counters)
		f.flows[key] = sum
	}
	return f.book.Publish(epoch)
}

// tunnelled are the ends of what passes the device in the test.
var tunnelled = []struct {
	ethertype  uint16
	here, away string
	headers    int
}{
	{flows.EtherTypeIPv4, "198.51.100.1", "198.51.100.2", 28},
	{flows.EtherTypeIPv6, "2001:db8::1", "2001:db8::2", 48},
}

// Packets of a device without an Ethernet header are read from the network header on, whichever
// meter has it, in whichever way, and by the next one too.
func TestInterfaceWithoutEthernetHeader(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		for _, role := range []Role{RolePods, RoleUplinks} {
			t.Run(fmt.Sprint(mode, " ", role), func(t *testing.T) {
				t.Parallel()
				requireMode(t, mode)
				host := ktest.NewNamespace(t)
				host.Sysctl(t, "net/ipv6/conf/default/addr_gen_mode", "1") // no address of its own, and nothing said of it
				device := host.Tun(t, "tun0")
				for _, ends := range tunnelled {
					prefix := netip.PrefixFrom(netip.MustParseAddr(ends.here), 64)
					if ends.ethertype == flows.EtherTypeIPv4 {
						prefix = netip.PrefixFrom(prefix.Addr(), 24)
					}
					host.Address(t, "tun0", prefix.String())
				}
				seen := &flowBook{book: newBook(), flows: make(map[flows.Key]flows.Counters)}
				chosen := func(o *Options) {
					o.Attach, o.Role, o.Interfaces, o.Sink = mode, role, []string{"tun*"}, seen
					if role == RoleUplinks {
						o.Uplinks, o.Interfaces = o.Interfaces, nil
					}
				}
				m := startMeter(t, host, chosen)
				m.awaitState(t, "tun0", StateAttached)
				passTun(t, host, device)
				path := m.options.PinPath
				m.stop()
				next := startMeter(t, host, func(o *Options) { chosen(o); o.PinPath = path })
				next.awaitState(t, "tun0", StateAttached)
				passTun(t, host, device)
				next.stop()
				checkTun(t, seen, role)
			})
		}
	}
}

// passTun sends 3 datagrams out of a device and 5 into it, of each IP family.
func passTun(t *testing.T, host *ktest.Namespace, device *os.File) {
	t.Helper()
	read := make([]byte, 2048)
	for _, ends := range tunnelled {
		here, away := netip.MustParseAddr(ends.here), netip.MustParseAddr(ends.away)
		host.Send(t, netip.AddrPortFrom(away, 9).String(), 100, 3)
		for got := 0; got < 3; { // what the IP stack says of its own is read as well
			n, err := device.Read(read)
			if err != nil {
				t.Fatalf("read from the device: %v", err)
			}
			if n == ends.headers+100 {
				got++
			}
		}
		for range 5 {
			packet := ktest.IPv6(away, here, flows.ProtocolUDP)
			if ends.ethertype == flows.EtherTypeIPv4 {
				packet = ktest.IPv4(away, here, flows.ProtocolUDP)
			}
			if _, err := device.Write(ktest.Packet(packet, ktest.Ports(7, 53))); err != nil {
				t.Fatalf("write to the device: %v", err)
			}
		}
	}
}

// checkTun checks the flows of what passTun has sent twice: directions are the node's where it
// meters an uplink, and the pod's else.
func checkTun(t *testing.T, seen *flowBook, role Role) {
	t.Helper()
	out, in := flows.Receive, flows.Transmit
	if role == RoleUplinks {
		out, in = flows.Transmit, flows.Receive
	}
	want, got := make(map[flows.Key]flows.Counters), make(map[flows.Key]flows.Counters)
	for _, ends := range tunnelled {
		here, away := netip.MustParseAddr(ends.here), netip.MustParseAddr(ends.away)
		key := flows.Key{Direction: out, EtherType: ends.ethertype, Protocol: flows.ProtocolUDP, Source: here, Destination: away, DestinationPort: 9}
		want[key] = flows.Counters{Bytes: 6 * uint64(ends.headers+100), Packets: 6}
		key = flows.Key{Direction: in, EtherType: ends.ethertype, Protocol: flows.ProtocolUDP, Source: away, Destination: here, DestinationPort: 53}
		want[key] = flows.Counters{Bytes: 10 * uint64(ends.headers-8+len(ktest.Ports(7, 53))), Packets: 10}
	}
	for key, counters := range seen.flows {
		key.Point = 0
		if !key.IsIP() {
			t.Errorf("%v: got %+v, want no packet that could not be read", key, counters)
		}
		if key.Protocol == flows.ProtocolUDP {
			got[key] = counters
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if seen.failed != 0 {
		t.Errorf("conservation error: got %d, want 0", seen.failed)
	}
}

func TestHeaderless(t *testing.T) {
	for encapsulation, want := range map[string]bool{"ether": false, "loopback": false, "none": true, "ppp": true, "tunnel": true, "sit": true} {
		if got := headerless(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{EncapType: encapsulation}}); got != want {
			t.Errorf("%s: got %t, want %t", encapsulation, got, want)
		}
	}
}
