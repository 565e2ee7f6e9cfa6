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
		{name: "four pods with all the label sets that they may have", run: fillTables},
	}
}

// fillTables sends a packet to each peer and to each stranger of four pods.
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
}
