// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
)

// wide is a service of n external addresses and as many ports, each second one.
func wide(uid, namespace string, n int) *Service {
	s := &Service{UID: uid, Namespace: namespace, Name: uid, Created: at(0)}
	for i := range n {
		s.Shared = append(s.Shared, netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}))
		s.Ports = append(s.Ports, ServicePort{flows.ProtocolTCP, uint16(2*i + 1)})
	}
	return s
}

func (c *claims) count() (all int) {
	for _, list := range c.byAddress {
		all += len(list)
	}
	return all
}

// A service costs by its addresses and ports, not by their product, and a change that
// is not about them costs nothing.
func TestServiceCostsByItsSize(t *testing.T) {
	c := newTestCache(&clock{start})
	const n = 256
	c.SetService(wide("s", "ns", n))
	if got := c.claims.count(); got != n {
		t.Errorf("got %d claims of %d addresses and %d ports, want one an address", got, n, n)
	}
	same := wide("s", "ns", n)
	allocations := testing.AllocsPerRun(10, func() { c.SetService(same) })
	if allocations > 10 {
		t.Errorf("got %v allocations for a change of a label, want a few", allocations)
	}
	if got := c.claims.count() + len(c.claims.ended); got != n {
		t.Errorf("got %d claims after a change of a label, want %d", got, n)
	}
	for port, want := range map[uint16]string{1: "service:s", 2: "external", 2*n - 1: "service:s", 2*n + 1: "external"} {
		q := query("203.0.0.255", 1, 2)
		if q.Port = port; says(c.Owner(q)) != want {
			t.Errorf("port %d: got %s, want %s", port, says(c.Owner(q)), want)
		}
	}
}

// What is claimed moves at the time of a change, and nothing else does.
func TestServiceChanges(t *testing.T) {
	ports := func(numbers ...uint16) (all []ServicePort) {
		for _, n := range numbers {
			all = append(all, ServicePort{flows.ProtocolTCP, n})
		}
		return all
	}
	k := &clock{start}
	c := newTestCache(k)
	base := Service{UID: "s", Name: "web", Created: at(-100)}
	for i, s := range []Service{
		{Addresses: addresses("10.96.0.1"), Shared: addresses("203.0.113.1", "203.0.113.2"), Ports: ports(80, 443)},
		{Addresses: addresses("10.96.0.1"), Shared: addresses("203.0.113.2", "203.0.113.3"), Ports: ports(443, 80)},
		{Addresses: addresses("10.96.0.1", "203.0.113.3"), Shared: addresses("203.0.113.2", "203.0.113.3"), Ports: ports(80, 8080)},
	} {
		k.Time = at(float64(100 * i))
		s.UID, s.Name, s.Created = base.UID, base.Name, base.Created
		c.SetService(&s)
	}
	k.Time = at(300)
	c.DeleteService("s")
	for _, test := range []struct {
		address     string
		port        uint16
		first, last float64
		want        string
	}{
		{"10.96.0.1", 1, 10, 290, "service:web"},
		{"203.0.113.1", 80, 10, 90, "service:web"},
		{"203.0.113.1", 80, 110, 120, "external"},
		{"203.0.113.2", 80, 10, 290, "service:web"}, // through both changes
		{"203.0.113.2", 443, 10, 190, "service:web"},
		{"203.0.113.2", 443, 210, 220, "external"},
		{"203.0.113.2", 8080, 110, 120, "external"},
		{"203.0.113.2", 8080, 210, 220, "service:web"},
		{"203.0.113.3", 80, 10, 20, "external"},
		{"203.0.113.3", 80, 110, 190, "service:web"},
		{"203.0.113.3", 443, 210, 220, "service:web"}, // its own by then
		{"203.0.113.3", 443, 310, 320, "external"},
		{"10.96.0.1", 1, 310, 320, "cluster"},
	} {
		q := query(test.address, test.first, test.last)
		q.Port = test.port
		if got := says(c.Owner(q)); got != test.want {
			t.Errorf("%s:%d from %v to %v: got %s, want %s", test.address, test.port, test.first, test.last, got, test.want)
		}
	}
	k.Time = at(100_000)
	c.SetNode(&Node{Name: "here"})
	if got := c.claims.count() + len(c.claims.ended) + c.external.all + len(c.external.byNamespace); got != 0 {
		t.Errorf("a day later: got %d of it left, want nothing", got)
	}
}

// However many services name one address, looking it up reads a bounded number of claims.
func TestManyServicesAtOneAddress(t *testing.T) {
	c := newTestCache(&clock{start})
	address := addresses("203.0.113.1")
	for i := range 10_000 {
		c.SetService(&Service{UID: fmt.Sprint(i), Namespace: fmt.Sprint(i % 100), Name: fmt.Sprint("s", i), Created: at(0),
			Shared: address, Ports: []ServicePort{{flows.ProtocolTCP, uint16(i + 1)}}})
	}
	if got := len(c.claims.byAddress[address[0]]); got != maxSharers {
		t.Errorf("got %d claims, want %d", got, maxSharers)
	}
	if got := c.Bounded()["external"]; got != 10_000-maxSharers {
		t.Errorf("got %d counted, want %d", got, 10_000-maxSharers)
	}
	// A ClusterIP has room all the same.
	c.SetService(&Service{UID: "own", Name: "own", Addresses: address})
	q := query("203.0.113.1", 1, 2)
	if q.Port = 60_000; says(c.Owner(q)) != "service:own" {
		t.Errorf("got %s, want service:own", says(c.Owner(q)))
	}
}

// A service, and a pod, that found no room at an address has it with its next change after there
// is some, whatever that is about.
func TestRoomIsTakenLater(t *testing.T) {
	const vip, net1 = "203.0.113.1", "192.168.7.2"
	k := &clock{start}
	c := newTestCache(k)
	service := func(i int) *Service {
		return &Service{UID: fmt.Sprint(i), Namespace: "ns", Name: fmt.Sprint("s", i), Created: at(0),
			Shared: addresses(vip, fmt.Sprint("203.0.114.", i%250)), Ports: []ServicePort{{flows.ProtocolTCP, uint16(i + 1)}}}
	}
	for i := range maxSharers + 1 {
		c.SetService(service(i))
		c.SetPod(announcing(fmt.Sprint("p", i), net1))
	}
	k.Time = at(10)
	for i := range maxSharers {
		c.DeleteService(fmt.Sprint(i))
		c.DeletePod(announcing(fmt.Sprint("p", i), net1))
	}
	c.SetService(service(maxSharers))
	c.SetPod(announcing(fmt.Sprint("p", maxSharers), net1))
	count := c.claims.count()
	c.SetService(service(maxSharers)) // as before
	c.SetPod(announcing(fmt.Sprint("p", maxSharers), net1))
	if got := c.claims.count(); got != count {
		t.Errorf("got %d claims after a change of nothing, want %d", got, count)
	}
	k.Time = at(100)
	q := query(vip, 50, 60)
	q.Port = maxSharers + 1
	if got, want := says(c.Owner(q)), fmt.Sprint("service:s", maxSharers); got != want {
		t.Errorf("%s: got %s, want %s", vip, got, want)
	}
	if got, want := says(c.Owner(query(net1, 50, 60))), fmt.Sprint("p", maxSharers); got != want {
		t.Errorf("%s: got %s, want %s", net1, got, want)
	}
}

// One namespace has a quarter of the room for external addresses, and gives it back.
func TestNamespaceLeavesRoomForOthers(t *testing.T) {
	c := newTestCache(&clock{start})
	each := wide("", "", 256).served()
	fit := maxExternal / 4 / each.places()
	claimed := func(namespace string, services int) (count int) {
		before := c.external.all
		for i := range services {
			c.SetService(wide(fmt.Sprint(namespace, i), namespace, 256))
		}
		return (c.external.all - before) / each.places()
	}
	if got := claimed("greedy", 2*fit); got != fit {
		t.Errorf("got %d services with their addresses, want %d", got, fit)
	}
	if got := c.Bounded()["external"]; got < uint64(fit) {
		t.Errorf("got %d counted, want at least %d", got, fit)
	}
	if got := claimed("modest", 1); got != 1 {
		t.Error("got another namespace without room")
	}
	c.SetService(&Service{UID: "greedy0", Namespace: "greedy", Name: "greedy0"}) // without any now
	c.DeleteService("greedy1")
	if got := claimed("greedy", 2*fit) + fit - 2; got != fit {
		t.Errorf("after two have gone: got %d, want %d", got, fit)
	}
}

// The past of services that change for ever is bounded, and takes nobody else's memory.
func TestPastIsBounded(t *testing.T) {
	effort.Long(t, "ends 400,000 claims")
	k := &clock{start}
	c := newTestCache(k)
	c.SetPod(pod("a", 0, x))
	k.Time = at(10)
	c.DeletePod(pod("a", 0))
	s := wide("s", "ns", 256)
	for i := range 3 * maxEnded / 256 {
		s.Ports = []ServicePort{{flows.ProtocolTCP, uint16(80 + i%2)}}
		c.SetService(s)
	}
	c.SetNode(&Node{Name: "here"})
	if got := len(c.claims.ended); got > maxEnded+1 {
		t.Errorf("got %d ended claims, want at most %d", got, maxEnded+1)
	}
	for _, a := range []netip.Addr{s.Shared[0], s.Shared[255]} {
		if got := len(c.claims.byAddress[a]); got > maxEndedAt+1 {
			t.Errorf("%s: got %d claims, want at most %d", a, got, maxEndedAt+1)
		}
	}
	if got := says(c.Owner(query(x, 1, 9))); got != "a" {
		t.Errorf("the pod before: got %s, want a", got)
	}
}

// The answers of port sets are those of a map.
func FuzzPortSet(f *testing.F) {
	f.Add([]byte{0, 1, 0, 1}, []byte{1, 0})
	f.Fuzz(func(t *testing.T, some, others []byte) {
		a, inA := portsOf(some)
		b, inB := portsOf(others)
		common := false
		for p := range inB {
			common = common || inA[p]
			if newPortSet(a).has(p) != inA[p] {
				t.Errorf("%v: got %v in %v", p, !inA[p], a)
			}
		}
		if got := newPortSet(a).meets(newPortSet(b)); got != common {
			t.Errorf("%v and %v: got %v, want %v", a, b, got, common)
		}
	})
}

func portsOf(text []byte) (all []ServicePort, in map[ServicePort]bool) {
	in = make(map[ServicePort]bool)
	for i := 0; i+1 < len(text); i += 2 {
		p := ServicePort{text[i] % 3, uint16(text[i+1])}
		all, in[p] = append(all, p), true
	}
	return all, in
}

func BenchmarkService(b *testing.B) {
	for _, n := range []int{1, 16, 256} {
		for name, changed := range map[string]bool{"same": false, "changed": true} {
			b.Run(fmt.Sprintf("%s-%dx%d", name, n, n), func(b *testing.B) {
				c := newTestCache(&clock{start})
				s, other := wide("s", "ns", n), wide("s", "ns", n)
				if changed {
					other.Ports[0].Port = 60_000
				}
				b.ReportAllocs()
				for b.Loop() {
					c.SetService(s)
					c.SetService(other)
				}
			})
		}
	}
}

// A service that changes its many ports for ever, or moves them from address to address, keeps
// the memory of no more of them than a bound.
func TestPastPortsAreBounded(t *testing.T) {
	k := &clock{start}
	c := newTestCache(k)
	k.Time = at(10)
	s := &Service{UID: "s", Namespace: "ns", Name: "s", Created: at(0)}
	const changes = 3 * maxEndedPorts / maxServicePorts
	port := func(i int) uint16 { return uint16(1 + i%2) }
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}) }
	for i := range changes {
		k.Time = k.Add(time.Second)
		s.Ports = nil
		for n := range maxServicePorts {
			s.Ports = append(s.Ports, ServicePort{flows.ProtocolTCP, port(i) + uint16(2*n)})
		}
		s.External, s.Shared = []netip.Addr{address(i)}, []netip.Addr{address(i), netip.AddrFrom4([4]byte{203, 0, 113, 1})}
		c.SetService(s)
	}
	sets := make(map[*portSet]bool)
	for _, list := range c.claims.byAddress {
		for _, cl := range list {
			sets[cl.ports] = true
		}
	}
	if got, most := len(sets), 2+maxEndedPorts/maxServicePorts; got > most {
		t.Errorf("got %d sets of ports after %d changes, want at most %d", got, changes, most)
	}
	// What was last is known, as it was.
	q := flows.Query{
		Address: address(changes - 2), Protocol: flows.ProtocolTCP, Port: port(changes - 2),
		First: k.Add(-900 * time.Millisecond), Last: k.Add(-100 * time.Millisecond),
	}
	if got := says(c.Owner(q)); got != "service:s" {
		t.Errorf("before the last change: got %s, want service:s", got)
	}
	c.DeleteService("s")
	k.Time = k.Add(2 * defaultHistory)
	c.SetNode(&Node{Name: "here"})
	if got := c.claims.endedPorts; got != 0 || len(c.claims.byAddress) != 0 {
		t.Errorf("in the end: got %d ports and %d addresses, want none", got, len(c.claims.byAddress))
	}
}
