// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
)

// uplinkSample is a checkpoint of uplinks with everything in it.
func uplinkSample() *checkpoint {
	pods := sample(0)
	account := pods.Flows.Accounts[0]
	return &checkpoint{Datapath: pods.Datapath, Uplinks: &flows.UplinkState{
		Uplinks: []flows.UplinkCounters{{
			Name: "eth0", Total: account.Total, Retired: account.Total, Gone: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		}},
		Rows: []flows.RowState[flows.UplinkLabels]{{
			Labels: flows.UplinkLabels{
				Interface: "eth0", PeerKind: flows.PeerExternal, Locality: flows.LocalityExternal, Peer: "a",
				Country: "CH", ASN: "64496", Organization: "Example",
			},
			Pair: account.Total, Last: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), Counted: true,
		}},
		Folded: 7, Stats: pods.Flows.Stats,
	}}
}

func testKeeper(t *testing.T, directory, name string) *keeper {
	t.Helper()
	k, err := newKeeper(directory, name, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The two checkpoints of a directory do not disturb each other.
func TestUplinkCheckpointComesBackWhole(t *testing.T) {
	directory := t.TempDir()
	pods, uplinks := testKeeper(t, directory, checkpointName), testKeeper(t, directory, uplinksName)
	pods.save(sample(2))
	uplinks.save(uplinkSample())
	for k, want := range map[*keeper]*checkpoint{pods: sample(2), uplinks: uplinkSample()} {
		got, err := k.read()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, asCheckpoints); diff != "" {
			t.Errorf("%s (-want +got):\n%s", k.path, diff)
		}
		if k.saved() == nil {
			t.Errorf("%s: got nothing for the datapath", k.path)
		}
	}
}

// A checkpoint of the other meter is set aside: its maps are not these.
func TestCheckpointOfTheOtherMeter(t *testing.T) {
	for name, content := range map[string]*checkpoint{checkpointName: uplinkSample(), uplinksName: sample(1)} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			k := testKeeper(t, directory, name)
			k.save(content)
			if got := k.saved(); got != nil || k.found != nil {
				t.Errorf("got %+v, want nothing", got)
			}
			if _, err := os.Stat(filepath.Join(directory, name+rejectedSuffix)); err != nil {
				t.Errorf("set aside: %v", err)
			}
		})
	}
}
