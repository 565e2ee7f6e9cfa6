// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"testing"
	"time"
)

// An interface that is younger than the news of its address's last owner waits,
// whole, and is bound then.
func TestYoungInterfaceWaits(t *testing.T) {
	publisher, table, d := world(1, TableOptions{FlowLimit: 100, ExternalLimit: 100}, Optional{})
	now := start.Add(4 * time.Second)
	publisher.options.Binder = AddressBinder{Directory: d, MinAge: 5 * time.Second, Now: func() time.Time { return now }}
	epoch := func() *Epoch {
		return &Epoch{
			Start: start, End: now, Interfaces: []Interface{iface(1)},
			Totals: []Total{{Point: 1, Counters: Counters{100, 1}, Unplaced: Counters{100, 1}}},
		}
	}
	if err := publisher.Publish(epoch()); err != nil {
		t.Fatal(err)
	}
	if got := table.Snapshot(); len(got.Pods) != 0 || publisher.Stats().UnboundBytes != 100 {
		t.Errorf("after 4 s: got %d pods, %d bytes unbound, want none and 100", len(got.Pods), publisher.Stats().UnboundBytes)
	}
	now = start.Add(5 * time.Second)
	if err := publisher.Publish(epoch()); err != nil {
		t.Fatal(err)
	}
	if got := table.Snapshot(); len(got.Pods) != 1 || got.Pods[0].Counters[Transmit].Bytes != 200 {
		t.Errorf("after 5 s: got %+v, want one pod with 200 bytes", got.Pods)
	}
}
