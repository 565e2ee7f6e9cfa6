// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

// tableAttacks are those on the room of tables.
func tableAttacks() []attack {
	return []attack{
		{name: "four pods with all the label sets that they may have", run: fillTables, check: roomForTheVictim},
	}
}

// fillTables sends a packet to each peer and to each stranger of four pods. Then the victim
// has a new peer.
func fillTables(ctx context.Context, t *testing.T, w *world) {
	crowd(ctx, hostilePods, func(ctx context.Context, number int) {
		injector := w.hostile[number].NewInjector(t, "eth0", false)
		source := netip.MustParseAddr(w.hostile[number].IP)
		for n := 0; n < namedPods && ctx.Err() == nil; n++ {
			peers := []netip.Addr{namedPod(n), netip.MustParseAddr(fmt.Sprintf("%s.%d", outside, n%250)),
				netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", n%250))}
			for _, peer := range peers {
				frame := ktest.Packet(ktest.Ethernet(unix.ETH_P_IP), ktest.IPv4(source, peer, unix.IPPROTO_UDP), ktest.Ports(uint16(n), uint16(n)))
				if _, err := injector.Send(frame); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	w.agent.metrics(t) // and with that a drain
	w.talk.add(t, w.victim, latePeer, &w.talk.said.outside)
}

// roomForTheVictim wants others' rows to have been folded, and none of the victim's.
func roomForTheVictim(t *testing.T, _ *world, _, after samples) {
	t.Helper()
	const flow, external = "podmeter_flow_transmit_bytes_total", "podmeter_external_transmit_bytes_total"
	for _, ip := range []string{victimPeer, latePeer} {
		if after.sum(external, "pod", victimName, "ip", ip) == 0 {
			t.Errorf("the victim has no row of %s", ip)
		}
	}
	folded := 0
	for n := range hostilePods {
		if after.sum(external, "pod", hostileName(n), "country", "other") > 0 {
			folded++
		}
	}
	if got := after.sum(flow, "pod", victimName, "peer_kind", "other"); got > 0 || folded == 0 {
		t.Errorf("got %v bytes of the victim folded, and rows of %d hostile pods; want none, and those of some", got, folded)
	}
}
