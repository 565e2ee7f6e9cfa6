// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// cgroups are the containers of the tests: id n is container n of pod n/10.
type cgroups struct{}

func (cgroups) Container(cgroup uint64) (pod, name string) {
	if cgroup < 10 {
		return "", ""
	}
	return fmt.Sprint("uid", cgroup/10), fmt.Sprint("c", cgroup)
}

// counting counts how often it is asked.
type counting struct {
	cgroups
	asked map[uint64]int
}

func (c counting) Container(cgroup uint64) (pod, name string) {
	c.asked[cgroup]++
	return c.cgroups.Container(cgroup)
}

// However many sockets a cgroup has, an epoch asks for its name once, and for their health once.
func TestCgroupsAreAskedForOnce(t *testing.T) {
	containers := counting{asked: make(map[uint64]int)}
	var all readerOf
	var health []HealthRecord
	for i := range 1000 {
		local := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(1+i))
		all = append(all, Socket{Protocol: ProtocolTCP, Owners: 2, Local: local, Now: by(11, 1, 0), Before: by(uint64(i%2), 0, 1)})
		health = append(health, HealthRecord{Cgroup: 11, Local: local, Peer: local, First: at(1), Last: at(2)})
	}
	publisher, _, _ := world(0, TableOptions{FlowLimit: 100}, Optional{})
	publisher.options.Containers = containers
	publisher.attribution.sockets = newSockets(all, containers, slog.New(slog.DiscardHandler))
	if err := publisher.Publish(&Epoch{Start: at(0), End: at(10), Health: health}); err != nil {
		t.Fatal(err)
	}
	for cgroup, most := range map[uint64]int{0: 1, 1: 1, 11: 2} {
		if got := containers.asked[cgroup]; got == 0 || got > most {
			t.Errorf("cgroup %d: got asked for %d times, want %d at most", cgroup, got, most)
		}
	}
}

// readerOf reads what it is.
type readerOf []Socket

func (r readerOf) Sockets(begin func(), visit func(*Socket)) error {
	begin()
	for i := range r {
		visit(&r[i])
	}
	return nil
}

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// by is an owner; until 0 is for ever.
func by(cgroup uint64, since, until float64) SocketOwner {
	o := SocketOwner{Cgroup: cgroup, Command: fmt.Sprint("p", cgroup), Since: at(since)}
	if until > 0 {
		o.Until = at(until)
	}
	return o
}

func TestSocketsTellTheContainer(t *testing.T) {
	end := netip.MustParseAddrPort
	const (
		local, peer = "10.0.0.1:5000", "10.0.9.9:80"
		local6      = "[2001:db8::1]:5000"
		peer6       = "[2001:db8::9]:80"
	)
	one := func(protocol uint8, local, peer string, owner SocketOwner) Socket {
		s := Socket{Protocol: protocol, Owners: 1, Now: owner}
		if local != "" {
			s.Local = end(local)
		}
		if peer != "" {
			s.Peer = end(peer)
		}
		return s
	}
	two := func(s Socket, before SocketOwner) Socket {
		s.Owners, s.Before = s.Owners+1, before
		return s
	}
	shared := func(s Socket) Socket {
		s.Shared = true
		return s
	}
	const tcp, udp = ProtocolTCP, ProtocolUDP
	for _, test := range []struct {
		name        string
		protocol    uint8
		local       string
		first, last float64
		sockets     readerOf
		want        string
	}{
		{"none", tcp, local, 1, 2, nil, ""},
		{"a connection", tcp, local, 1, 2, readerOf{one(tcp, local, peer, by(11, 1, 0))}, "c11 p11"},
		{"before it was accepted, and after its end", tcp, local, 1, 4, readerOf{one(tcp, local, peer, by(11, 2, 3))}, "c11 p11"},
		{"a connection before the listener", tcp, local, 1, 2,
			readerOf{one(tcp, "0.0.0.0:5000", "", by(12, 0, 0)), one(tcp, local, peer, by(11, 1, 0))}, "c11 p11"},
		{"a listener of IPv4", tcp, local, 1, 2, readerOf{one(tcp, "0.0.0.0:5000", "", by(12, 0, 0))}, "c12 p12"},
		{"a listener of both", tcp, local, 1, 2, readerOf{one(tcp, "[::]:5000", "", by(12, 0, 0))}, "c12 p12"},
		{"a listener of IPv4 is none of IPv6", tcp, local6, 1, 2, readerOf{one(tcp, "0.0.0.0:5000", "", by(12, 0, 0))}, ""},
		{"a listener of the address", tcp, local, 1, 2,
			readerOf{one(tcp, local, "", by(11, 0, 0)), one(tcp, "0.0.0.0:5000", "", by(12, 0, 0))}, "c11 p11"},
		{"a listener that came later", tcp, local, 1, 2, readerOf{one(tcp, "0.0.0.0:5000", "", by(12, 3, 0))}, ""},
		{"a connection of an unknown cgroup", tcp, local, 1, 2, readerOf{one(tcp, local, peer, by(0, 1, 0))}, ""},
		{"another pod's", tcp, local, 1, 2, readerOf{one(tcp, local, peer, by(21, 1, 0))}, ""},
		{"of UDP", udp, local, 1, 2, readerOf{one(tcp, local, peer, by(11, 1, 0))}, ""},
		{"two listeners", tcp, local, 1, 2, readerOf{shared(one(tcp, "0.0.0.0:5000", "", by(12, 0, 0)))}, ""},
		{"two listeners, and the connection of one", tcp, local, 1, 2,
			readerOf{shared(one(tcp, "0.0.0.0:5000", "", by(12, 0, 0))), one(tcp, local, peer, by(11, 1, 0))}, "c11 p11"},
		{"the same ends twice", tcp, local, 1, 2,
			readerOf{one(tcp, local, "", by(11, 0, 0)), one(tcp, local, "", by(12, 0, 0))}, ""},

		{"UDP, bound", udp, local, 1, 2, readerOf{one(udp, local, "", by(11, 1, 0))}, "c11 p11"},
		{"UDP, any address", udp, local, 1, 2, readerOf{one(udp, "0.0.0.0:5000", "", by(11, 1, 0))}, "c11 p11"},
		{"UDP, known by the peer", udp, local, 1, 2, readerOf{one(udp, "", peer, by(11, 1, 0))}, "c11 p11"},
		{"UDP, known by the peer of IPv6", udp, local6, 1, 2, readerOf{one(udp, "", peer6, by(11, 1, 0))}, "c11 p11"},
		{"UDP, closed before", udp, local, 4, 5, readerOf{one(udp, local, "", by(11, 1, 3))}, ""},
		{"UDP, closed before, and another knows the peer", udp, local, 4, 5,
			readerOf{one(udp, local, "", by(11, 1, 3)), one(udp, "", peer, by(12, 3.5, 0))}, "c12 p12"},
		{"UDP, late packets", udp, local, 2, 4, readerOf{one(udp, local, "", by(11, 1, 3))}, "c11 p11"},
		{"UDP, late packets, which may be another's", udp, local, 2, 4,
			readerOf{one(udp, local, "", by(11, 1, 3)), one(udp, "", peer, by(12, 3.5, 0))}, ""},
		{"UDP, whole, and another knows the peer", udp, local, 1, 2,
			readerOf{one(udp, local, "", by(11, 1, 0)), one(udp, "", peer, by(12, 1, 0))}, "c11 p11"},

		{"handed over before", udp, local, 4, 5, readerOf{two(one(udp, local, "", by(12, 3, 0)), by(11, 1, 2))}, "c12 p12"},
		{"handed over after", udp, local, 1, 2, readerOf{two(one(udp, local, "", by(12, 4, 0)), by(11, 1, 3))}, "c11 p11"},
		{"handed over meanwhile", udp, local, 1, 5, readerOf{two(one(udp, local, "", by(12, 4, 0)), by(11, 1, 3))}, ""},
		{"handed over at once", udp, local, 3, 5, readerOf{two(one(udp, local, "", by(12, 3, 0)), by(11, 1, 3))}, ""},
		{"handed over meanwhile, between processes of one container", udp, local, 1, 5,
			readerOf{two(one(udp, local, "", by(11, 4, 0)), SocketOwner{Cgroup: 11, Command: "other", Since: at(1), Until: at(3)})}, "c11 "},
		{"handed over twice, before the first of two that are known", udp, local, 1, 2,
			readerOf{two(two(one(udp, local, "", by(12, 5, 0)), SocketOwner{}), by(11, 3, 4))}, ""},
		{"handed over twice, at the first of two that are known", udp, local, 3, 3.5,
			readerOf{two(two(one(udp, local, "", by(12, 5, 0)), SocketOwner{}), by(11, 3, 4))}, "c11 p11"},
		{"handed over twice, from before the first of two that are known", udp, local, 2, 3.5,
			readerOf{two(two(one(udp, local, "", by(12, 5, 0)), SocketOwner{}), by(11, 3, 4))}, ""},
		{"handed over twice, meanwhile, by one container", udp, local, 3.5, 6,
			readerOf{two(two(one(udp, local, "", by(11, 5, 0)), SocketOwner{}), by(11, 3, 4))}, "c11 p11"},
		{"a connection handed over twice, from before the first of two that are known", tcp, local, 2, 3.5,
			readerOf{two(two(one(tcp, local, peer, by(12, 5, 0)), SocketOwner{}), by(11, 3, 4))}, ""},
		{"a connection handed over, before it was accepted", tcp, local, 2, 3.5,
			readerOf{two(one(tcp, local, peer, by(12, 5, 0)), by(11, 3, 4))}, "c11 p11"},
		{"UDP, from before it was bound", udp, local, 1, 4, readerOf{one(udp, local, "", by(11, 3, 0))}, ""},
		{"UDP, known by the peer, from before it was connected", udp, local, 1, 4, readerOf{one(udp, "", peer, by(11, 3, 0))}, ""},
		{"a listener, from before it came", tcp, local, 1, 4, readerOf{one(tcp, "0.0.0.0:5000", "", by(11, 3, 0))}, ""},
		{"handed over twice, now", udp, local, 6, 7,
			readerOf{two(two(one(udp, local, "", by(12, 5, 0)), SocketOwner{}), by(11, 3, 4))}, "c12 p12"},
		{"handed over from nobody knows", udp, local, 1, 2, readerOf{two(one(udp, local, "", by(12, 4, 0)), by(0, 1, 3))}, ""},
	} {
		for _, direction := range []Direction{Transmit, Receive} {
			t.Run(test.name+", "+direction.String(), func(t *testing.T) {
				publisher, table, d := world(1, roomy, Optional{Process: true})
				publisher.attribution.sockets = newSockets(test.sockets, cgroups{}, slog.New(slog.DiscardHandler))
				here, there := end(test.local), end(peer)
				if here.Addr().Is6() {
					there = end(peer6)
				}
				d.pods[here.Addr()] = d.pods[podAddress(1)]
				key := Key{Point: 1, EtherType: EtherTypeIPv4, Protocol: test.protocol, Direction: direction,
					Source: here.Addr(), SourcePort: here.Port(), Destination: there.Addr(), DestinationPort: there.Port()}
				if direction == Receive {
					key.Source, key.SourcePort, key.Destination, key.DestinationPort = there.Addr(), there.Port(), here.Addr(), here.Port()
				}
				e := epochOf(1, []Interface{iface(1)})
				e.Records = []Record{{Key: key, Counters: Counters{10, 1}, First: at(test.first), Last: at(test.last)}}
				e.Totals = totalsOf(e.Records)
				publish(t, publisher, e)
				series := table.Snapshot().Flows
				if len(series) != 1 {
					t.Fatalf("got %d series, want 1", len(series))
				}
				got := series[0].Labels.Container + " " + series[0].Labels.Process
				if want := test.want; strings.TrimSpace(got) != strings.TrimSpace(want) {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	}
}

// failing is a reader that cannot.
type failing struct{ err error }

func (f *failing) Sockets(begin func(), _ func(*Socket)) error {
	begin()
	return f.err
}

// What is told is told once, and bytes go on without their container.
func TestSocketsThatCannotBeRead(t *testing.T) {
	publisher, table, _ := world(1, roomy, Optional{})
	var said strings.Builder
	reader := &failing{errors.New("broken")}
	publisher.attribution.sockets = newSockets(reader, cgroups{}, slog.New(slog.NewTextHandler(&said, nil)))
	publish(t, publisher, epochOf(0, []Interface{iface(1)}), epochOf(1, []Interface{iface(1)}, unplaced(1, 10)))
	reader.err = nil
	publish(t, publisher, epochOf(2, []Interface{iface(1)}, unplaced(1, 10)), epochOf(3, []Interface{iface(1)}))
	checkSent(t, table, map[string]uint64{"pod1": 20})
	if warned, again := strings.Count(said.String(), "level=WARN"), strings.Count(said.String(), "level=INFO"); warned != 1 || again != 1 {
		t.Errorf("got %d warnings and %d all-clears, want one of each:\n%s", warned, again, said.String())
	}
}

// What is listed are the ports that are open, of one pod.
func TestListeners(t *testing.T) {
	publisher, _, d := world(2, roomy, Optional{})
	end := netip.MustParseAddrPort
	publisher.attribution.sockets = newSockets(readerOf{
		{Protocol: ProtocolUDP, Local: end("0.0.0.0:53"), Owners: 1, Now: by(12, 1, 0)},
		{Protocol: ProtocolTCP, Local: end("[::]:53"), Owners: 1, Now: by(11, 1, 0)},
		{Protocol: ProtocolTCP, Local: end("10.0.0.1:53"), Peer: end("10.0.0.9:1"), Owners: 1, Now: by(11, 1, 0)}, // a connection
		{Protocol: ProtocolTCP, Local: end("[::]:7"), Owners: 1, Now: by(11, 1, 0), Shared: true},
		{Protocol: ProtocolTCP, Local: end("[::]:8"), Owners: 1, Now: by(11, 1, 2)},     // closed
		{Protocol: ProtocolTCP, Local: end("[::]:9"), Owners: 1, Now: by(21, 1, 0)},     // another pod's
		{Protocol: ProtocolUDP, Peer: end("10.0.0.9:53"), Owners: 1, Now: by(11, 1, 0)}, // has no port yet
	}, cgroups{}, slog.New(slog.DiscardHandler))
	publish(t, publisher, epochOf(0, []Interface{iface(1)}))
	want := []Listener{
		{Protocol: ProtoTCP, Local: end("[::]:7")},
		{ProtoTCP, end("[::]:53"), "c11", "p11"},
		{ProtoUDP, end("0.0.0.0:53"), "c12", "p12"},
	}
	got := publisher.Listeners(d.pods[podAddress(1)])
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
