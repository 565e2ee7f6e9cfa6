// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/owned"
	"golang.org/x/sys/unix"
)

// sample returns a checkpoint with everything in it, of n flow series.
func sample(n int) *checkpoint {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	pair := flows.PairState{
		Counters: [flows.Directions]flows.Counters{{Bytes: 1<<63 + 1, Packets: 2}, {Bytes: 3, Packets: 4}},
		Created:  [flows.Directions]time.Time{at, {}},
	}
	account := flows.AccountState{
		Namespace: "shop", Pod: "web", UIDs: []string{"a", "b"}, Total: pair, RetiredExternal: pair,
		Retired: map[flows.PeerKind]flows.PairState{flows.PeerExternal: pair}, Earlier: &pair.Counters,
		Externals: []flows.RowState[flows.ExternalLabels]{{
			Labels: flows.ExternalLabels{Country: "CH", City: "Zürich", IP: netip.MustParseAddr("2001:db8::1")},
			Pair:   pair, Last: at, Counted: true,
		}},
	}
	for i := range n {
		account.Flows = append(account.Flows, flows.RowState[flows.FlowLabels]{
			Labels: flows.FlowLabels{
				Container: "nginx", Workload: flows.Workload{Type: "deployment", Name: "web"}, PeerKind: flows.PeerPod,
				Locality: flows.LocalitySameZone, Protocol: flows.ProtoTCP, PeerNamespace: "shop",
				Peer: fmt.Sprint("client-", i), PeerWorkloadType: "deployment",
			},
			Pair: pair, Last: at, Counted: true,
		})
		account.Health = append(account.Health, flows.HealthState{
			Row: i, Opened: 1, Segments: 2, Bytes: 1 << 40, RTT: []uint64{0, 0, 7}, RTTSum: 1 << 50, Created: at,
		})
	}
	interfaceOf := flows.Interface{
		Point: 7, Name: "veth0", Attached: at, PeerNamespace: -1, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
	}
	waiting := []flows.WaitingState{{Direction: flows.Receive, Counters: flows.Counters{Bytes: 5, Packets: 1}, Start: at}}
	return &checkpoint{
		Datapath: &datapath.SavedState{
			BootID: "boot", SetID: 1<<64 - 1, Epoch: 42, Began: [2]time.Time{at, at},
			Drained: [2][]datapath.DrainedTotal{{{Point: 7, Direction: 1, Bytes: 9, Inserted: 1}}, nil},
			Attachments: []datapath.AttachmentState{{
				Point: 7, Name: "veth0", Mode: datapath.AttachTCX, Attached: at, Settled: true,
				Addresses: interfaceOf.Addresses, Unmetered: [flows.Directions]bool{true, false},
			}},
			Existing: map[uint32]string{7: "veth0 02:00:00:00:00:01 2"},
			Past:     []datapath.PastState{{Point: 9, Device: "veth1", Counters: [flows.Directions]flows.Counters{{Bytes: 1, Packets: 1}}}},
		},
		Flows: &flows.State{
			Accounts: []flows.AccountState{account}, FoldedFlow: 1,
			Points:  []flows.PointState{{Interface: interfaceOf, Pod: &flows.Pod{UID: "a", Name: "web"}, Exported: &pair.Counters, Partial: true}},
			Orphans: []flows.PointState{{Interface: interfaceOf, Totals: waiting, Rows: waiting, Seen: interfaceOf.Addresses}},
			EarlyHealth: []flows.EarlyHealthState{{UID: "b", Labels: flows.FlowLabels{Peer: "db"}, Entries: 2, Until: at,
				Health: flows.HealthState{Opened: 2, Created: at}}},
			Stats: flows.Stats{ResidueBytes: 1, LastEpoch: at, Health: flows.HealthEntries{NoPod: 1}},
		},
	}
}

// asCheckpoints compares them by what is written.
var asCheckpoints = cmp.Options{
	cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}),
	cmpopts.IgnoreUnexported(flows.RowState[flows.FlowLabels]{}, flows.RowState[flows.ExternalLabels]{}, flows.RowState[flows.UplinkLabels]{}),
}

func testCheckpoints(t testing.TB) *checkpoints {
	t.Helper()
	c, err := newCheckpoints(t.TempDir()+"/state", checkpointName)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A link in the place of the next checkpoint, or of the checkpoint, leads nowhere.
func TestCheckpointDoesNotFollow(t *testing.T) {
	c, victim := testCheckpoints(t), filepath.Join(t.TempDir(), "victim")
	if err := errors.Join(os.Mkdir(filepath.Dir(c.path), 0o700), os.WriteFile(victim, []byte("precious"), 0o600),
		os.Symlink(victim, c.path+nextSuffix), os.Symlink(victim, c.path)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.read(); !errors.Is(err, errCheckpoint) {
		t.Errorf("a link: got %v, want %v", err, errCheckpoint)
	}
	if err := c.write(sample(0)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("another's file: got %q, %v, want it as it was", got, err)
	}
	if got, err := c.read(); got == nil || err != nil {
		t.Errorf("got %v, %v, want the checkpoint", got, err)
	}
}

// A state directory, and one of the socket, that others can write is refused with what to do;
// a directory that becomes such while the agent runs is not written in.
func TestDirectoriesOfOthersAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	k, err := newKeeper(dir, checkpointName, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	k.save(sample(0))
	if failed, problem := k.saves.status(); failed != 1 || !strings.Contains(problem, dir) {
		t.Errorf("while it runs: got %d failures, problem %q, want one that names %s", failed, problem, dir)
	}
	_, err = newKeeper(dir, checkpointName, slog.New(slog.DiscardHandler))
	if !IsUsage(err) || !errors.Is(err, owned.ErrForeign) || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("at the start: got %v, want wrong usage that says what to do", err)
	}
	_, err = listenSocket(t.Context(), filepath.Join(dir, "s"), slog.New(slog.DiscardHandler))
	if !IsUsage(err) || !errors.Is(err, owned.ErrForeign) {
		t.Errorf("socket: got %v, want wrong usage", err)
	}
}

func TestCheckpointComesBackWhole(t *testing.T) {
	c := testCheckpoints(t)
	if got, err := c.read(); got != nil || err != nil {
		t.Errorf("before the first: got %v, %v, want nothing", got, err)
	}
	for n := range 3 {
		if err := c.write(sample(n)); err != nil {
			t.Fatal(err)
		}
		got, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sample(n), got, asCheckpoints); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// A checkpoint of a build that did not know of hidden, bypassed and past packets, nor of
// the health of connections, nor of what is exported of each interface, is read as one
// that has none: the file was written by such a build, of the same sample.
func TestCheckpointOfAnEarlierBuild(t *testing.T) {
	file, err := os.ReadFile("testdata/checkpoint-before-states")
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeCheckpoint(file)
	if err != nil {
		t.Fatal(err)
	}
	want := sample(1)
	want.Datapath.Past = nil
	want.Flows.Accounts[0].Health, want.Flows.Stats.Health = nil, flows.HealthEntries{}
	want.Flows.EarlyHealth = nil
	want.Flows.Accounts[0].Earlier = nil
	want.Flows.Points[0].Exported, want.Flows.Points[0].Partial = nil, false
	if diff := cmp.Diff(want, got, asCheckpoints); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Whatever is not a whole checkpoint of this layout is refused.
func TestCheckpointIsRefused(t *testing.T) {
	t.Parallel()
	c := testCheckpoints(t)
	if err := c.write(sample(2)); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(c.path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.read(); !errors.Is(err, errCheckpoint) {
			t.Errorf("%s: got %v, want %v", name, err, errCheckpoint)
		}
	}
	for n := 0; n < len(good); n += effort.Choose(1, 7) {
		try(fmt.Sprint("cut to ", n), good[:n])
		flipped := append([]byte(nil), good...)
		flipped[n] ^= 1
		try(fmt.Sprint("bit of byte ", n), flipped)
	}
	try("longer", append(append([]byte(nil), good...), 0))
	try("something else", []byte("pods:\n- name: a\n"))
	aside, err := c.setAside()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(aside); err != nil {
		t.Errorf("set aside: %v", err)
	}
	if got, err := c.read(); got != nil || err != nil {
		t.Errorf("after it was set aside: got %v, %v, want nothing", got, err)
	}
}

func TestCheckpointThatCannotBeWritten(t *testing.T) {
	c := testCheckpoints(t)
	if err := os.WriteFile(c.path[:len(c.path)-len("/"+checkpointName)], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.write(sample(1)); err == nil {
		t.Error("a file where the directory should be: got no error")
	}
}

// BenchmarkCheckpoint copies, encodes and writes a table of 10,000 flow series, as each drain
// does. cpu-ms is the time of CPUs that a checkpoint takes, in user and kernel.
func BenchmarkCheckpoint(b *testing.B) {
	c, content := testCheckpoints(b), sample(10_000)
	publisher := flows.NewPublisher(flows.PublisherOptions{
		Table:  flows.NewTable(flows.TableOptions{FlowLimit: 20_000, FlowIdle: time.Hour, SeriesGrace: time.Hour}),
		Binder: flows.NameBinder{}, Logger: slog.New(slog.DiscardHandler),
		Persist: func(state *flows.State) {
			content.Flows = state
			if err := c.write(content); err != nil {
				b.Fatal(err)
			}
		},
	})
	if err := publisher.Restore(content.Flows); err != nil {
		b.Fatal(err)
	}
	epoch := &flows.Epoch{Start: content.Flows.Stats.LastEpoch, End: content.Flows.Stats.LastEpoch}
	before := usedCPU(b)
	for b.Loop() {
		if err := publisher.Publish(epoch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((usedCPU(b)-before).Microseconds())/1e3/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(c.body.Len())/10_000, "B/series")
}

// usedCPU is the CPU time of this process.
func usedCPU(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// A checkpoint of more rows than CBOR's decoder takes by default is read like any other: whoever made
// that many series would have a restart forget all.
func TestCheckpointOfManyRows(t *testing.T) {
	const rows = 1<<17 + 1
	c := testCheckpoints(t)
	if err := c.write(sample(rows)); err != nil {
		t.Fatal(err)
	}
	content, err := c.read()
	if err != nil || len(content.Flows.Accounts[0].Flows) != rows {
		t.Errorf("got %v, want %d rows", err, rows)
	}
}
