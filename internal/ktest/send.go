// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Send sends count UDP datagrams with so many bytes of payload from the namespace to an
// address with its port, all of one flow. Nobody needs to listen there. When it returns
// none of them waits for a neighbour's link address any more.
func (ns *Namespace) Send(tb testing.TB, to string, size, count int) {
	tb.Helper()
	err := ns.Do(func() error {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		if err != nil {
			return err
		}
		defer conn.Close()
		payload := make([]byte, size)
		for sent := 0; sent < count; {
			_, err := conn.Write(payload)
			switch {
			case err == nil:
				sent++
			case !errors.Is(err, unix.ECONNREFUSED): // what ICMP said of an earlier one
				return err
			}
		}
		var lookup error
		awaited := Eventually(Patience, "the neighbour's link address", func() bool {
			var waits bool
			waits, lookup = unresolved()
			return !waits || lookup != nil
		})
		return errors.Join(awaited, lookup)
	})
	if err != nil {
		tb.Fatalf("send to %s: %v", to, err)
	}
}
