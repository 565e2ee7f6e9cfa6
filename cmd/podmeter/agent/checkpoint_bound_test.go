// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
)

// The most bytes that a row takes in a checkpoint, all labels as long as may be.
// docs/RELIABILITY.md says what follows from them and the series limits.
const (
	flowRowBytes     = 2_000
	externalRowBytes = 1_000
)

func TestCheckpointIsBounded(t *testing.T) {
	letters := func(limit int) string { return strings.Repeat("a", limit) }
	flow := flows.RowState[flows.FlowLabels]{Counted: true, Labels: flows.FlowLabels{
		Container: letters(plain.LabelLimit), Workload: flows.Workload{Type: letters(plain.LabelLimit), Name: letters(plain.NameLimit)},
		PeerNamespace: letters(plain.LabelLimit), Peer: letters(plain.NameLimit), PeerWorkloadType: letters(plain.LabelLimit),
		Service: letters(plain.LabelLimit), PeerPod: letters(plain.NameLimit), Process: letters(plain.KernelLimit),
		PeerIP: netip.MustParseAddr("2001:db8::1"), PeerPort: 65535,
	}}
	external := flows.RowState[flows.ExternalLabels]{Counted: true, Labels: flows.ExternalLabels{
		Country: "DE", ASN: "4294967295", Organization: letters(plain.PlaceLimit), City: letters(plain.PlaceLimit), Latitude: "-89.123456",
		Longitude: "-179.123456", IP: netip.MustParseAddr("2001:db8::1"), Container: letters(plain.LabelLimit),
	}}
	most := flows.Counters{Bytes: 1 << 63, Packets: 1 << 63}
	health := flows.HealthState{Row: 1, Opened: 1 << 63, Failed: 1 << 63, Segments: 1 << 63, Bytes: 1 << 63, RTTSum: 1 << 63}
	for range flows.RTTBuckets {
		health.RTT = append(health.RTT, 1<<40)
	}
	size := func(change func(*flows.AccountState)) int {
		c, content := testCheckpoints(t), sample(0)
		if change != nil {
			change(&content.Flows.Accounts[0])
		}
		if err := c.write(content); err != nil {
			t.Fatal(err)
		}
		return c.body.Len()
	}
	before := size(nil)
	created := sample(0).Flows.Accounts[0].Total
	for name, row := range map[string]struct {
		most int
		add  func(*flows.AccountState)
	}{
		"flow": {flowRowBytes, func(a *flows.AccountState) {
			flow.Pair, flow.Last = flows.PairState{Counters: [2]flows.Counters{most, most}, Created: created.Created}, created.Created[0]
			a.Flows, a.Health = append(a.Flows, flow), append(a.Health, health)
		}},
		"external": {externalRowBytes, func(a *flows.AccountState) {
			external.Pair, external.Last = flows.PairState{Counters: [2]flows.Counters{most, most}, Created: created.Created}, created.Created[0]
			a.Externals = append(a.Externals, external)
		}},
	} {
		if got := size(row.add) - before; got > row.most || got < row.most/2 {
			t.Errorf("%s: got %d bytes a row, want at most %d, and not much less", name, got, row.most)
		}
	}
}

// A file that no agent has the memory to read is set aside before it is read.
func TestCheckpointTooLargeToRead(t *testing.T) {
	c := testCheckpoints(t)
	if err := c.write(sample(0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(c.path, checkpointLimit+1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.read(); !errors.Is(err, errCheckpoint) || !strings.Contains(err.Error(), fmt.Sprintf("more than %d", checkpointLimit)) {
		t.Errorf("got %v, want %v by its size", err, errCheckpoint)
	}
}
