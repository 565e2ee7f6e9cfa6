// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/effort"
)

// A publisher that goes on from a state shows what the one shows that never ended.
func TestRestoredGoesOnAsIfNothingHappened(t *testing.T) {
	for seed := range effort.Choose(20, uint64(4)) {
		random := rand.New(rand.NewPCG(seed, 7))
		limits := TableOptions{
			FlowLimit: 1 << 20, ExternalLimit: 1 << 20, // what was folded lately is not in a state
			FlowIdle: 3 * time.Minute, SeriesGrace: 2 * time.Minute,
		}
		optional := Optional{PeerIP: seed%2 == 0, City: seed%3 == 0}
		one, oneTable, d := world(6, limits, optional)
		one.options.Containers = cgroups{}
		var saved *State
		one.options.Persist = func(s *State) { saved = s }
		for number := range 12 {
			// Pods come to be known, and interfaces go.
			if number == 4 {
				delete(d.pods, podAddress(6))
			}
			publish(t, one, traffic(random, number, 3+number%4))
		}
		two, twoTable, _ := world(0, limits, optional)
		two.options.Directory, two.options.Binder = one.options.Directory, one.options.Binder
		two.attribution.directory, two.options.Containers = one.attribution.directory, cgroups{}
		if err := two.Restore(saved); err != nil {
			t.Fatal(err)
		}
		for number := 12; number < 24; number++ {
			compareSnapshots(t, seed, oneTable.Snapshot(), twoTable.Snapshot())
			if got, want := two.Stats(), one.Stats(); got != want {
				t.Fatalf("seed %d: stats: got %+v, want %+v", seed, got, want)
			}
			epoch := traffic(random, number, 3+number%4)
			publish(t, one, epoch)
			publish(t, two, epoch)
		}
	}
}

// What an earlier build bound without a workload has the one by which peers know it; an
// interface that stands in for a pod has none.
func TestRestoredPodsHaveWorkloads(t *testing.T) {
	point := func(id Point, pod *Pod) PointState { return PointState{Interface: iface(int(id)), Pod: pod} }
	publisher, _, _ := world(0, roomy, Optional{})
	web := Workload{Type: "deployment", Name: "web"}
	err := publisher.Restore(&State{Points: []PointState{
		point(1, &Pod{UID: "a", Namespace: "shop", Name: "lone"}),
		point(2, &Pod{UID: "b", Namespace: "shop", Name: "web-1", Workload: web}),
		point(3, NameBinder{}.Bind(iface(3), nil, nil)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[Point]Workload{}
	for id, pod := range publisher.Pods() {
		got[id] = pod.Workload
	}
	want := map[Point]Workload{1: {Type: BarePod, Name: "lone"}, 2: web, 3: {}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("workloads (-want +got):\n%s", diff)
	}
}

func compareSnapshots(t *testing.T, seed uint64, want, got *Snapshot) {
	t.Helper()
	if diff := cmp.Diff(linesOf(want), linesOf(got)); diff != "" {
		t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
	}
}

// linesOf is a snapshot as sorted text.
func linesOf(s *Snapshot) []string {
	lines := []string{fmt.Sprint("end ", s.End, " limits ", s.FlowSets, s.ExternalSets, s.FoldedFlowBytes, s.FoldedExternalBytes)}
	lines = appendLines(lines, "pod", s.Pods)
	lines = appendLines(lines, "flow", s.Flows)
	for _, health := range s.Health {
		lines = append(lines, fmt.Sprintf("health %+v", health))
	}
	lines = appendLines(lines, "retired", s.Retired)
	lines = appendLines(lines, "external", s.Externals)
	lines = appendLines(lines, "external retired", s.RetiredExternals)
	slices.Sort(lines)
	return lines
}

func appendLines[L any](lines []string, family string, all []Series[L]) []string {
	for _, series := range all {
		lines = append(lines, fmt.Sprintf("%s %+v", family, series))
	}
	return lines
}

// A state is handed over while nobody can see what is new in it.
func TestStateIsPersistedBeforeItIsSeen(t *testing.T) {
	publisher, table, _ := world(1, TableOptions{FlowLimit: 100, ExternalLimit: 100}, Optional{})
	calls := 0
	publisher.options.Persist = func(s *State) {
		calls++
		if table.mu.TryLock() {
			t.Error("the table can be seen before its state is persisted")
			table.mu.Unlock()
		}
		if n := slices.IndexFunc(s.Accounts, func(a AccountState) bool { return a.Pod == "pod1" }); n < 0 {
			t.Error("the new epoch is not in the state")
		}
	}
	publish(t, publisher, epochOf(0, []Interface{iface(1)}, unplaced(1, 100)))
	if calls != 1 {
		t.Errorf("got %d states, want one an epoch", calls)
	}
}

func TestRestoreOverSomething(t *testing.T) {
	publisher, _, _ := world(1, TableOptions{FlowLimit: 100, ExternalLimit: 100}, Optional{})
	publish(t, publisher, epochOf(0, []Interface{iface(1)}, unplaced(1, 100)))
	if err := publisher.Restore(&State{}); !errors.Is(err, errNotEmpty) {
		t.Errorf("got %v, want %v", err, errNotEmpty)
	}
}
