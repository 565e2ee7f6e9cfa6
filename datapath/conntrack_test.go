// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lookup asks the node's table for a connection to the Service.
func lookup(t testing.TB, c *Conntrack, s *ktest.ServiceNode, connection flows.Connection) (b flows.Backend, found bool) {
	t.Helper()
	err := s.Node.Do(func() (err error) {
		b, found, err = c.Backend(connection)
		return err
	})
	if err != nil {
		t.Fatalf("look up %v: %v", connection, err)
	}
	return b, found
}

func newConntrack(t testing.TB) *Conntrack {
	c := &Conntrack{}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func connect(t testing.TB, s *ktest.ServiceNode, network, service string) flows.Connection {
	t.Helper()
	protocol := map[string]uint8{"tcp": flows.ProtocolTCP, "udp": flows.ProtocolUDP}[network]
	return flows.Connection{
		Protocol: protocol, Client: s.Talk(t, network, service, 0, 100), Service: netip.MustParseAddrPort(service),
	}
}

// The kernel tells the backend of a connection, also once it has ended, and only of
// the one that is asked for.
func TestConntrackTellsBackends(t *testing.T) {
	t.Parallel()
	s, c := ktest.NewServiceNode(t), newConntrack(t)
	for _, test := range []struct{ network, service, backend string }{
		{"tcp", ktest.Service4 + ":80", ktest.Blue4 + ":8080"},
		{"tcp", ktest.Service4 + ":81", ktest.Green4 + ":8080"},
		{"udp", ktest.Service4 + ":80", ktest.Blue4 + ":8080"},
		{"tcp", "[" + ktest.Service6 + "]:81", "[" + ktest.Green6 + "]:8080"},
		{"udp", "[" + ktest.Service6 + "]:80", "[" + ktest.Blue6 + "]:8080"},
		{"tcp", ktest.Blue4 + ":8080", ktest.Blue4 + ":8080"}, // no Service
	} {
		t.Run(test.network+" "+test.service, func(t *testing.T) {
			connection := connect(t, s, test.network, test.service)
			b, found := lookup(t, c, s, connection)
			if want := netip.MustParseAddrPort(test.backend); !found || b.Address != want || !b.Since.IsZero() {
				t.Errorf("backend: got %+v, found %t, want %v", b, found, want)
			}
			connection.Protocol = flows.ProtocolTCP + flows.ProtocolUDP - connection.Protocol
			if b, found := lookup(t, c, s, connection); found {
				t.Errorf("of another protocol: got %+v, want none", b)
			}
		})
	}
}

// What the backend sees of a connection is not a connection to a Service.
func TestConntrackKnowsTheOtherSide(t *testing.T) {
	t.Parallel()
	s, c := ktest.NewServiceNode(t), newConntrack(t)
	connection := connect(t, s, "tcp", ktest.Service4+":80")
	connection.Client, connection.Service = netip.MustParseAddrPort(ktest.Blue4+":8080"), connection.Client
	if b, found := lookup(t, c, s, connection); found {
		t.Errorf("got %+v, want none", b)
	}
}

// An entry that is gone is not found, and one that is made anew for the same ports
// has its own backend and, if the kernel writes that down, time.
func TestConntrackEntryIsMadeAnew(t *testing.T) {
	t.Parallel()
	s, c := ktest.NewServiceNode(t), newConntrack(t)
	s.Node.Sysctl(t, "net/netfilter/nf_conntrack_timestamp", "1")
	connection := flows.Connection{Protocol: flows.ProtocolUDP, Service: netip.MustParseAddrPort(ktest.Service4 + ":80")}
	for _, backend := range []string{ktest.Blue4, ktest.Green4} {
		s.Translate(t, backend, ktest.Blue6)
		before := time.Now()
		connection.Client = s.Talk(t, "udp", ktest.Service4+":80", 5000, 100)
		after := time.Now()
		b, found := lookup(t, c, s, connection)
		if !found || b.Address.Addr().String() != backend {
			t.Errorf("backend: got %+v, found %t, want %s", b, found, backend)
		}
		if b.Since.Before(before.Round(0)) || b.Since.After(after.Round(0)) {
			t.Errorf("since: got %v, want between %v and %v", b.Since, before, after)
		}
		if err := s.Node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
			t.Fatal(err)
		}
		if b, found := lookup(t, c, s, connection); found {
			t.Errorf("when it is gone: got %+v, want none", b)
		}
	}
}

// What the kernel refuses is an error, and the next lookup works.
func TestConntrackFails(t *testing.T) {
	t.Parallel()
	s, c := ktest.NewServiceNode(t), newConntrack(t)
	connection := connect(t, s, "tcp", ktest.Service4+":80")
	wrong := connection
	wrong.Client = netip.AddrPort{}
	err := s.Node.Do(func() error {
		_, _, err := c.Backend(wrong)
		return err
	})
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ERANGE) {
		t.Errorf("without an address: got %v, want it refused", err)
	}
	if c.socket != 0 {
		t.Error("the socket is open after a failure, want it closed")
	}
	if _, found := lookup(t, c, s, connection); !found {
		t.Error("afterwards: got nothing, want the backend")
	}
}

// BenchmarkConntrack looks up a connection that is known.
func BenchmarkConntrack(b *testing.B) {
	s, c := ktest.NewServiceNode(b), newConntrack(b)
	connection := connect(b, s, "tcp", ktest.Service4+":80")
	err := s.Node.Do(func() error {
		for b.Loop() {
			if _, _, err := c.Backend(connection); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
}
