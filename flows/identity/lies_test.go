// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// far is a pod of another node, as that node's kubelet reports it.
func far(name, node string, started float64, ips ...string) *Pod {
	p := pod(name, started, ips...)
	p.Node, p.Created = node, at(started)
	return p
}

// ranged is a node that has been given a range, and an address of its own.
func ranged(name, address string, prefixes ...string) *Node {
	n := &Node{Name: name, Addresses: addresses(address)}
	for _, prefix := range prefixes {
		n.PodRanges = append(n.PodRanges, netip.MustParsePrefix(prefix))
	}
	return n
}

// What another node's kubelet says of its pods does not take an address from who has
// it by better evidence; and when a claim ends, those that go on have the address again.
func TestClaimsOfOtherNodes(t *testing.T) {
	const liar = "liar"
	victim, later := far("victim", "n1", 0, x), far("victim", "n1", 100, x)
	nodes := func(c *Cache) {
		c.SetNode(ranged("n1", "192.0.2.11", "10.0.0.0/24", "fd00:1::/64"))
		c.SetNode(ranged("n2", "192.0.2.12", "10.0.2.0/24", "fd00:2::/64"))
	}
	lie := func(started float64, ips ...string) *Pod { return far(liar, "n2", started, ips...) }
	for _, test := range []struct {
		name string
		do   func(*Cache, *clock)
		asks []ask
	}{
		{"of a pod of this node", func(c *Cache, k *clock) {
			c.SetPod(a)
			k.Time = at(50)
			c.SetPod(lie(50, x))
			k.Time = at(200)
			c.DeletePod(lie(50, x))
		}, []ask{{10, 20, "a"}, {60, 150, "a"}, {180, 220, "a"}, {300, 301, "a"}}},
		{"of a pod of this node that is told of later", func(c *Cache, k *clock) {
			c.SetPod(lie(-50, x))
			k.Time = at(3)
			c.SetPod(a)
		}, []ask{{10, 20, "a"}, {2, 20, "unattributed"}}},
		{"of a pod of this node that is being deleted: it may be another's already", func(c *Cache, k *clock) {
			c.SetPod(changed(a, func(p *Pod) { p.Leaving = true }))
			k.Time = at(100)
			c.SetPod(lie(50, x))
		}, []ask{{10, 20, "a"}, {60, 150, "unattributed"}}},
		{"outside of its node's range", func(c *Cache, k *clock) {
			nodes(c)
			c.SetPod(victim)
			k.Time = at(50)
			c.SetPod(lie(50, x))
			k.Time = at(200)
			c.DeletePod(lie(50, x))
		}, []ask{{10, 20, "victim"}, {60, 150, "victim"}, {180, 220, "victim"}, {300, 301, "victim"}}},
		{"outside of its node's range, and first", func(c *Cache, k *clock) {
			nodes(c)
			c.SetPod(lie(0, x))
			k.Time = at(101)
			c.SetPod(later)
		}, []ask{{10, 20, liar}, {102, 300, "victim"}, {100, 300, "unattributed"}}},
		{"outside of its node's range, of which is told last", func(c *Cache, k *clock) {
			c.SetPod(lie(0, x))
			k.Time = at(101)
			c.SetPod(later)
			nodes(c)
		}, []ask{{102, 300, "victim"}, {100, 300, "unattributed"}}},
		{"in dual stack", func(c *Cache, k *clock) {
			nodes(c)
			c.SetPod(far("victim", "n1", 0, "10.0.0.7", "fd00:1::7"))
			k.Time = at(50)
			c.SetPod(lie(50, "10.0.2.9", "fd00:1::7"))
			k.Time = at(51)
			c.SetPod(far("victim6", "n1", 50, x))
			c.SetPod(lie(50, x, "fd00:1::7"))
		}, []ask{{60, 150, "victim6"}}},
		{"without ranges: the first one stays", func(c *Cache, k *clock) {
			c.SetPod(victim)
			k.Time = at(50)
			c.SetPod(lie(50, x))
		}, []ask{{10, 20, "victim"}, {51, 300, "victim"}, {40, 60, "victim"}}},
		{"without ranges, of an older pod", func(c *Cache, k *clock) {
			c.SetPod(lie(-100, "10.0.2.2"))
			c.SetPod(victim)
			k.Time = at(50)
			c.SetPod(lie(-100, x))
		}, []ask{{10, 20, "victim"}, {51, 300, "victim"}}},
		{"without ranges, of a pod that says it began before it was made", func(c *Cache, k *clock) {
			c.SetPod(victim)
			k.Time = at(50)
			c.SetPod(changed(lie(50, x), func(p *Pod) { p.Started = at(-1e6) }))
		}, []ask{{10, 20, "victim"}, {51, 300, "victim"}}},
		{"without ranges, as the mirror of a static pod that began before", func(c *Cache, k *clock) {
			c.SetPod(victim)
			k.Time = at(50)
			c.SetPod(changed(lie(50, x), func(p *Pod) { p.Started, p.StaticUID = at(-1e6), "1" }))
		}, []ask{{51, 300, "victim"}}},
		{"that begin in the future", func(c *Cache, k *clock) {
			c.SetPod(victim)
			k.Time = at(50)
			c.SetPod(lie(1e6, x))
		}, []ask{{10, 20, "victim"}, {51, 300, "victim"}, {1e6, 1e6 + 1, "victim"}}},
		{"without ranges: the first one is being deleted", func(c *Cache, k *clock) {
			c.SetPod(victim)
			c.SetPod(changed(victim, func(p *Pod) { p.Leaving = true }))
			k.Time = at(50)
			c.SetPod(far("next", "n2", 49, x))
			c.DeletePod(victim)
		}, []ask{{10, 20, "victim"}, {51, 300, "next"}}},
		{"without ranges: the first one is being deleted and stays so", func(c *Cache, k *clock) {
			c.SetPod(victim)
			k.Time = at(50)
			c.SetPod(far("next", "n2", 49, x))
			k.Time = at(60)
			c.SetPod(changed(victim, func(p *Pod) { p.Leaving = true }))
		}, []ask{{10, 20, "victim"}, {61, 300, "next"}}},
		{"without ranges, and first, until it ends", func(c *Cache, k *clock) {
			c.SetPod(lie(0, x))
			k.Time = at(101)
			c.SetPod(later)
			k.Time = at(200)
			c.DeletePod(lie(0, x))
		}, []ask{{10, 20, liar}, {150, 160, liar}, {201, 300, "victim"}}},
		{"without ranges, and first, until its node is known", func(c *Cache, k *clock) {
			c.SetPod(lie(0, x))
			k.Time = at(101)
			c.SetPod(later)
			k.Time = at(102)
			c.SetNode(ranged("n1", "192.0.2.11", "10.0.0.0/24"))
		}, []ask{{101, 300, "victim"}}},
		{"of one node: the last one has it, and the first one comes back", func(c *Cache, k *clock) {
			c.SetPod(a)
			k.Time = at(100)
			c.SetPod(b)
			k.Time = at(200)
			c.DeletePod(b)
		}, []ask{{10, 20, "a"}, {110, 190, "b"}, {201, 300, "a"}, {150, 250, "unattributed"}}},
		{"of one node, that ended and was told of late", func(c *Cache, k *clock) {
			c.SetPod(a)
			k.Time = at(100)
			c.SetPod(b)
			k.Time = at(200)
			c.DeletePod(ended(b, 180))
		}, []ask{{110, 179, "b"}, {182, 300, "a"}}},
		{"of one node, three, that end in another order", func(c *Cache, k *clock) {
			c.SetPod(a)
			k.Time = at(100)
			c.SetPod(b)
			k.Time = at(150)
			c.SetPod(pod("c", 150, x))
			k.Time = at(200)
			c.DeletePod(b)
			k.Time = at(250)
			c.DeletePod(pod("c", 150, x))
		}, []ask{{110, 140, "b"}, {160, 240, "c"}, {251, 300, "a"}}},
		{"for longer than anything is remembered", func(c *Cache, k *clock) {
			c.SetPod(a)
			k.Time = at(100)
			c.SetPod(b)
			k.Time = at(100_000)
			c.SetPod(pod("other", 0, "10.0.0.9"))
			c.DeletePod(b)
		}, []ask{{100_001, 100_002, "a"}}},
		{"of a pod in its node's network", func(c *Cache, k *clock) {
			c.SetPod(victim)
			k.Time = at(50)
			c.SetPod(changed(lie(50, x), func(p *Pod) { p.HostNetwork = true }))
		}, []ask{{51, 300, "victim"}}},
		{"that have been over before they were told", func(c *Cache, k *clock) {
			c.SetPod(victim)
			k.Time = at(50)
			c.SetPod(ended(lie(10, x), 20))
			c.SetPod(changed(lie(10, x), func(p *Pod) { p.UID, p.Finished = "other", true }))
		}, []ask{{30, 40, "victim"}, {51, 300, "victim"}}},
		{"of a pod that has ended, which leave its status and return", func(c *Cache, k *clock) {
			job := far("job", "n1", -100, x)
			c.SetPod(job)
			c.SetPod(ended(job, -50))
			c.SetPod(victim)
			k.Time = at(50)
			c.SetPod(changed(ended(job, -50), func(p *Pod) { p.Addresses = nil }))
			k.Time = at(60)
			c.SetPod(ended(job, -50))
		}, []ask{{1, 300, "victim"}}},
		{"by a node's own status", func(c *Cache, k *clock) {
			c.SetPod(victim)
			k.Time = at(50)
			c.SetNode(ranged("n2", x))
		}, []ask{{40, 60, "victim"}, {51, 300, "victim"}}},
		{"of a pod that is gone", func(c *Cache, k *clock) {
			nodes(c)
			c.SetPod(victim)
			k.Time = at(50)
			c.SetPod(lie(50, x))
			k.Time = at(100)
			c.DeletePod(victim)
		}, []ask{{51, 99, "victim"}, {90, 120, "unattributed"}, {110, 300, liar}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := &clock{start}
			c := newTestCache(k)
			test.do(c, k)
			for _, ask := range test.asks {
				if got := says(c.Owner(query(x, ask.first, ask.last))); got != ask.want {
					t.Errorf("%v to %v: got %s, want %s", ask.first, ask.last, got, ask.want)
				}
			}
		})
	}
}

// What is nobody's by the word of a single kubelet: addresses of Services, of nodes, of
// this host, and of the internet where nodes have ranges.
func TestPodsClaimWhatIsNoPods(t *testing.T) {
	k := &clock{start}
	c := newTestCache(k)
	c.SetHostAddresses(addresses("192.0.2.1", "10.0.9.1"))
	c.SetNode(ranged("n1", "192.0.2.11", "10.0.0.0/24"))
	c.SetNode(ranged("n2", "192.0.2.12", "10.0.2.0/24"))
	c.SetService(&Service{UID: "s", Namespace: "ns", Name: "dns", Addresses: addresses("10.96.0.10"), Created: at(-10)})
	c.SetService(&Service{UID: "l", Namespace: "ns", Name: "lb", Shared: addresses("203.0.113.1"),
		Ports: []ServicePort{{flows.ProtocolTCP, 80}}, Created: at(-10)})
	c.setNamed(map[netip.Prefix]string{netip.MustParsePrefix("198.51.100.0/24"): "office"})
	claims := []string{"10.96.0.10", "192.0.2.11", "192.0.2.1", "10.0.9.1", "203.0.113.1", "203.0.113.9", "2001:db8::9", "192.168.7.5", "198.51.100.5"}
	for n, address := range claims {
		c.SetPod(far(fmt.Sprint("liar", n), "n2", 0, address))
		c.SetPod(far(fmt.Sprint("unranged", n), "n3", 0, address))
	}
	for address, want := range map[string]string{
		"10.96.0.10": "service:dns", "10.0.9.1": "node:here", "192.0.2.1": "node:here",
	} {
		if got := says(c.Owner(query(address, 1, 2))); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
	for n := range claims { // of nodes without a range there is nothing to compare with
		c.DeletePod(far(fmt.Sprint("unranged", n), "n3", 0))
	}
	k.Time = at(60)
	for address, want := range map[string]string{
		"10.96.0.10": "service:dns", "10.0.9.1": "node:here", "192.0.2.1": "node:here",
		"192.0.2.11": "node:n1", "203.0.113.1": "service:lb", "203.0.113.9": "external",
		"2001:db8::9":  "liar6", // the node has no range of IPv6
		"192.168.7.5":  "liar7", // a pool of the CNI plugin, for all that is known
		"198.51.100.5": "liar8",
	} {
		if got := says(c.Owner(query(address, 70, 80))); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

// A Service that claims what is not its own.
func TestClaimsOfServices(t *testing.T) {
	ports := []ServicePort{{flows.ProtocolTCP, 80}}
	service := func(name string, created float64, change func(*Service)) *Service {
		s := &Service{UID: "uid-" + name, Namespace: "ns", Name: name, Ports: ports, Created: at(created)}
		change(s)
		return s
	}
	external := func(ips ...string) func(*Service) { return func(s *Service) { s.External = addresses(ips...) } }
	balanced := func(ips ...string) func(*Service) { return func(s *Service) { s.Shared = addresses(ips...) } }
	own := func(ips ...string) func(*Service) { return func(s *Service) { s.Addresses = addresses(ips...) } }
	for _, test := range []struct {
		name     string
		services []*Service
		address  string
		want     string
	}{
		{"external: the internet", []*Service{service("liar", 0, external("203.0.113.1"))}, "203.0.113.1", "external"},
		{"external: the internet, IPv6", []*Service{service("liar", 0, external("2001:db8::1"))}, "2001:db8::1", "external"},
		{"external: a private address", []*Service{service("vip", 0, external("192.168.1.1"))}, "192.168.1.1", "service:vip"},
		{"external: another Service's ClusterIP", []*Service{service("web", 0, own("10.96.0.1")), service("liar", -50, external("10.96.0.1"))}, "10.96.0.1", "service:web"},
		{"external: ClusterIP of one that comes later", []*Service{service("liar", -50, external("10.96.0.1")), service("web", 0, own("10.96.0.1"))}, "10.96.0.1", "service:web"},
		{"external: a pod of this node", []*Service{service("liar", -50, external("10.0.0.1"))}, "10.0.0.1", "a"},
		{"external: a pod of another node", []*Service{service("liar", -50, external("10.0.2.1"))}, "10.0.2.1", "there"},
		{"external: a node", []*Service{service("liar", -50, external("192.0.2.2"))}, "192.0.2.2", "node:n"},
		{"external: a node's private address", []*Service{service("liar", -50, external("172.16.0.2"))}, "172.16.0.2", "node:n"},
		{"external: this host", []*Service{service("liar", -50, external("172.16.0.1"))}, "172.16.0.1", "node:here"},
		{"external: a range of pods", []*Service{service("liar", -50, external("10.7.7.7"))}, "10.7.7.7", "cluster"},
		{"external: a named range", []*Service{service("liar", -50, external("172.20.0.1"))}, "172.20.0.1", "cidr:lab"},
		{"external: link-local", []*Service{service("liar", -50, external("169.254.169.254"))}, "169.254.169.254", "link_local"},
		{"external: a load balancer's", []*Service{service("liar", -50, external("192.168.1.1")), service("lb", 0, balanced("192.168.1.1"))}, "192.168.1.1", "service:lb"},
		{"external: two of them, the first has it", []*Service{service("liar", 0, external("192.168.1.1")), service("vip", -10, external("192.168.1.1"))}, "192.168.1.1", "service:vip"},
		{"external: two of one second, none has it", []*Service{service("one", 0, external("192.168.1.1")), service("two", 0, external("192.168.1.1"))}, "192.168.1.1", "private"},
		{"balanced: the internet", []*Service{service("lb", 0, balanced("203.0.113.1"))}, "203.0.113.1", "service:lb"},
		{"balanced: a node, as K3s has it", []*Service{service("lb", 0, balanced("192.0.2.2"))}, "192.0.2.2", "service:lb"},
		{"balanced: another Service's ClusterIP", []*Service{service("liar", -50, balanced("10.96.0.1")), service("web", 0, own("10.96.0.1"))}, "10.96.0.1", "service:web"},
		{"balanced: a pod of another node", []*Service{service("liar", -50, balanced("10.0.2.1"))}, "10.0.2.1", "there"},
		{"balanced: two of them, the first has it", []*Service{service("liar", 0, balanced("203.0.113.1")), service("lb", -10, balanced("203.0.113.1"))}, "203.0.113.1", "service:lb"},
		{"balanced: three, the first has it", []*Service{service("liar", 0, balanced("203.0.113.1")), service("lb", -10, balanced("203.0.113.1")), service("liar2", 0, balanced("203.0.113.1"))}, "203.0.113.1", "service:lb"},
		{"balanced: two of one second", []*Service{service("one", 0, balanced("203.0.113.1")), service("two", 0, balanced("203.0.113.1"))}, "203.0.113.1", "external"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := &clock{start}
			c := newTestCache(k)
			c.SetHostAddresses(addresses("172.16.0.1"))
			c.SetNode(&Node{Name: "n", Addresses: addresses("192.0.2.2", "172.16.0.2")})
			c.SetPod(pod("a", 0, "10.0.0.1"))
			c.SetPod(far("there", "n", 0, "10.0.2.1"))
			c.setNamed(map[netip.Prefix]string{netip.MustParsePrefix("172.20.0.0/16"): "lab"})
			k.Time = at(1)
			for _, s := range test.services {
				c.SetService(s)
			}
			for _, ask := range []flows.Query{query(test.address, 10, 20), query(test.address, 0, 0)} {
				if got := says(c.Owner(ask)); got != test.want {
					t.Errorf("%v: got %s, want %s", ask.First, got, test.want)
				}
			}
		})
	}
}

// A Service gives back what it claimed, also what another one claims beside it.
func TestServicesGiveBack(t *testing.T) {
	k := &clock{start}
	c := newTestCache(k)
	ports := []ServicePort{{flows.ProtocolTCP, 80}}
	s := &Service{UID: "s", Namespace: "ns", Name: "s", Addresses: addresses("10.96.0.1"), Ports: ports, Created: at(-10)}
	c.SetService(s)
	first := &Service{UID: "f", Namespace: "ns", Name: "first", Shared: addresses("203.0.113.1"), Ports: ports, Created: at(-20)}
	second := &Service{UID: "g", Namespace: "ns", Name: "second", Shared: addresses("203.0.113.1"), Ports: ports, Created: at(-5)}
	c.SetService(second)
	c.SetService(first)
	liar := &Service{UID: "l", Namespace: "ns", Name: "liar", External: addresses("10.96.0.1", "203.0.113.1", "192.168.0.1"), Ports: ports, Created: at(-10)}
	c.SetService(liar)
	expect := func(when float64, want map[string]string) {
		t.Helper()
		for address, owner := range want {
			if got := says(c.Owner(query(address, when, when))); got != owner {
				t.Errorf("%s at %v: got %s, want %s", address, when, got, owner)
			}
		}
	}
	expect(1, map[string]string{"10.96.0.1": "service:s", "203.0.113.1": "service:first", "192.168.0.1": "service:liar"})
	k.Time = at(50)
	promoted := *liar // its load balancer is ready
	promoted.Shared = addresses("192.168.0.1")
	c.SetService(&promoted)
	c.DeleteService("f")
	expect(60, map[string]string{"203.0.113.1": "service:second", "192.168.0.1": "service:liar"})
	k.Time = at(100)
	c.DeleteService("l")
	c.DeleteService("g")
	expect(110, map[string]string{"10.96.0.1": "service:s", "203.0.113.1": "external", "192.168.0.1": "private"})
	expect(20, map[string]string{"203.0.113.1": "service:first", "192.168.0.1": "service:liar"})
}

// A Service that was the first to share a port of an address stays it when its other ports
// and addresses change; with a port that it gets later, another one is the first.
func TestChangedPortsKeepTheirTime(t *testing.T) {
	for _, kind := range []struct {
		name, address string
		of            func(*Service) *[]netip.Addr
	}{
		{"load balancer", "203.0.113.1", func(s *Service) *[]netip.Addr { return &s.Shared }},
		{"externalIPs", "192.168.0.1", func(s *Service) *[]netip.Addr { return &s.External }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			k := &clock{start}
			c := newTestCache(k)
			set := func(when float64, name string, addresses []netip.Addr, ports ...uint16) {
				k.Time = at(when)
				s := &Service{UID: name, Namespace: name, Name: name, Created: at(0)}
				if name == "liar" {
					s.Created = at(10)
				}
				*kind.of(s) = addresses
				for _, p := range ports {
					s.Ports = append(s.Ports, ServicePort{flows.ProtocolTCP, p})
				}
				c.SetService(s)
			}
			all := addresses(kind.address, "192.168.0.9")
			set(1, "first", all[:1], 80)
			set(11, "liar", all, 80, 443, 8443)
			set(100, "first", all[:1], 80, 443)
			set(200, "first", all, 80, 443, 8080)
			set(300, "first", all, 80)
			set(400, "first", all[:1], 80, 443)
			for _, ask := range []struct {
				port        uint16
				first, last float64
				want        string
			}{
				{80, 20, 90, "service:first"}, {80, 110, 120, "service:first"}, {80, 20, 450, "service:first"},
				{443, 50, 60, "service:liar"}, {443, 110, 120, "service:liar"}, {443, 410, 420, "service:liar"},
				{8443, 20, 450, "service:liar"}, {8080, 210, 290, "service:first"},
			} {
				q := query(kind.address, ask.first, ask.last)
				q.Port = ask.port
				if got := says(c.Owner(q)); got != ask.want {
					t.Errorf("port %d, %v to %v: got %s, want %s", ask.port, ask.first, ask.last, got, ask.want)
				}
			}
			if got := len(c.claims.byAddress[all[0]]); got != 6 {
				t.Errorf("got %d claims, want one for each set of ports that there was", got)
			}
		})
	}
}

// However many Services name a load balancer's address as their external one, the load
// balancer's own has room.
func TestExternalIPsLeaveRoomForLoadBalancers(t *testing.T) {
	c := newTestCache(&clock{start})
	address, ports := addresses("192.168.0.1"), []ServicePort{{flows.ProtocolTCP, 80}}
	for i := range 2 * maxSharers {
		c.SetService(&Service{UID: fmt.Sprint(i), Namespace: "liars", Name: fmt.Sprint("liar", i), Created: at(-50), External: address, Ports: ports})
	}
	if got := len(c.claims.byAddress[address[0]]); got != maxSharers {
		t.Errorf("got %d claims, want %d", got, maxSharers)
	}
	c.SetService(&Service{UID: "lb", Namespace: "ns", Name: "lb", Created: at(-10), Shared: address, Ports: ports})
	if got := says(c.Owner(query("192.168.0.1", 1, 2))); got != "service:lb" {
		t.Errorf("got %s, want service:lb", got)
	}
}

// Whoever comes and goes as fast as it can keeps neither the address nor the memory.
func TestFlappingClaimIsBounded(t *testing.T) {
	for _, ranges := range []bool{false, true} {
		k := &clock{start}
		c := newTestCache(k)
		if ranges {
			c.SetNode(ranged("n1", "192.0.2.11", "10.0.0.0/24"))
			c.SetNode(ranged("n2", "192.0.2.12", "10.0.2.0/24"))
		}
		c.SetPod(far("victim", "n1", 0, x))
		for n := range 10_000 {
			k.Time = at(float64(n) / 10)
			liar := far(fmt.Sprint("liar", n), "n2", float64(n/10), x)
			c.SetPod(liar)
			c.DeletePod(liar)
			if got := says(c.Owner(query(x, float64(n)/10, float64(n)/10+1))); got != "victim" {
				t.Fatalf("ranges %t, at %v: got %s, want victim", ranges, k.Time, got)
			}
		}
		if got := len(c.claims.byAddress[netip.MustParseAddr(x)]); got > maxEndedAt+2 {
			t.Errorf("ranges %t: got %d claims, want at most %d", ranges, got, maxEndedAt+2)
		}
	}
}

// A node whose kubelet says that all of its pods have one address takes neither the time of
// look-ups and news nor the address of a pod of another node.
func TestManyPodsOfANodeAtOneAddress(t *testing.T) {
	k := &clock{start}
	c := newTestCache(k)
	victim := far("victim", "n1", 0, x)
	c.SetPod(victim)
	k.Time = at(1)
	liar := func(n int) *Pod { return far(fmt.Sprint("liar", n), "n2", 1, x, "10.0.9.9") }
	const liars = 2 * maxSharers
	for n := range liars {
		c.SetPod(liar(n))
	}
	if got := len(c.claims.byAddress[netip.MustParseAddr(x)]); got > maxSharers+1 {
		t.Errorf("got %d claims, want at most %d", got, maxSharers+1)
	}
	if got := c.Bounded()["addresses"]; got != liars-maxSharers {
		t.Errorf("got %d pods beyond the bound, want %d", got, liars-maxSharers)
	}
	k.Time = at(2)
	c.SetPod(far("late", "n3", 2, "10.0.9.9"))
	for n := range liars {
		c.DeletePod(liar(n))
	}
	k.Time = at(100)
	for address, want := range map[string]string{x: "victim", "10.0.9.9": "late"} {
		if got := says(c.Owner(query(address, 90, 95))); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

// A time that is beyond what 64 bits of nanoseconds hold is not one of long ago: whose kubelet starts
// its pod in the year 9999 did not have the address first, and what ends then has not ended.
func TestTimesBeyondAllClocks(t *testing.T) {
	for _, year := range []int{2262, 2263, 2300, 2554, 2800, 9999} {
		k := &clock{start}
		c := newTestCache(k)
		c.SetPod(far("victim", "n1", 0, x))
		k.Time = at(100)
		liar := changed(far("liar", "n2", 100, x, "10.0.9.9"), func(p *Pod) { p.Started = time.Date(year, 12, 31, 23, 0, 0, 0, time.UTC) })
		c.SetPod(liar)
		for _, ask := range []flows.Query{query(x, 90, 95), query(x, 150, 160)} {
			if got := says(c.Owner(ask)); got != "victim" {
				t.Errorf("started in %d, at %v: got %s, want victim", year, ask.First, got)
			}
		}
		k.Time = at(200)
		c.SetPod(changed(liar, func(p *Pod) { p.Finished, p.Ended = true, p.Started }))
		if got := says(c.Owner(query("10.0.9.9", 150, 160))); got != "liar" {
			t.Errorf("ended in %d: got %s, want liar", year, got)
		}
	}
	for year, want := range map[int]int64{1: beginning, 1600: beginning, 2500: forever} {
		if got := nanoseconds(time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC)); got != want {
			t.Errorf("%d: got %d, want %d", year, got, want)
		}
	}
}

// Whatever order news come in, and whatever liars of other nodes say meanwhile, those who
// are vouched for keep their names, and have all of their addresses in the end.
func TestLiarsInAnyOrder(t *testing.T) {
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 3))
		k := &clock{start}
		c := newTestCache(k)
		victims := map[string]*Pod{x: a, "10.0.1.1": far("in-range", "n1", 0, "10.0.1.1"), "10.0.3.1": far("unranged", "n3", -1000, "10.0.3.1")}
		news := []func(){
			func() { c.SetNode(ranged("n1", "192.0.2.11", "10.0.1.0/24")) },
			func() { c.SetNode(ranged("n2", "192.0.2.12", "10.0.2.0/24")) },
			func() { c.SetNode(ranged("n3", "192.0.2.13")) },
		}
		for _, p := range victims {
			news = append(news, func() { c.SetPod(p) })
		}
		random.Shuffle(len(news), func(i, j int) { news[i], news[j] = news[j], news[i] })
		for _, tell := range news {
			tell()
		}
		var lies []*Pod
		for n := range 60 {
			k.Time = at(float64(10 * (n + 1)))
			address := []string{x, "10.0.1.1", "10.0.3.1"}[random.IntN(3)]
			switch {
			case len(lies) > 0 && random.IntN(2) == 0:
				last := random.IntN(len(lies))
				c.DeletePod(lies[last])
				lies = append(lies[:last], lies[last+1:]...)
			default:
				p := far(fmt.Sprint("liar", n), "n2", float64(10*n), address)
				p.Started = at(float64(random.IntN(2000) - 1000))
				p.Leaving = random.IntN(4) == 0
				c.SetPod(p)
				lies = append(lies, p)
			}
			for address, want := range victims {
				first := float64(10 * (n + 1))
				if got := c.Owner(query(address, first, first+5)); got.Pod != want.Name {
					t.Fatalf("seed %d, step %d, %s: got %s, want %s", seed, n, address, says(got), want.Name)
				}
			}
		}
		if got := c.LocalPod(netip.MustParseAddr(x), at(1), k.Time); got == nil || got.Name != "a" {
			t.Fatalf("seed %d: the interface of a: got %v", seed, got)
		}
	}
}

// Another node's claim of an address does not keep the interface of the pod of this
// node that has it from being bound.
func TestBindsUnderAClaimOfAnotherNode(t *testing.T) {
	k := &clock{start}
	c := newTestCache(k)
	c.SetPod(a)
	k.Time = at(10)
	c.SetPod(far("liar", "n2", 9, x))
	k.Time = at(20)
	if got := c.LocalPod(netip.MustParseAddr(x), at(1), k.Time.Add(time.Second)); got == nil || got.Name != "a" {
		t.Errorf("got %+v, want a", got)
	}
}
