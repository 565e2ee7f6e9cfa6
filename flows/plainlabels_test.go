// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows/plain"
)

// vile is what an earlier build kept as it came.
const vile = "<b>\x1b[2J\n\u202e\xff"

// vileState is a state of such a build: labels that are long, and such that are equal once
// they are clean.
func vileState(at time.Time) *State {
	long := vile + strings.Repeat("a", 1_000_000)
	pair := func(bytes uint64) PairState {
		return PairState{Counters: [Directions]Counters{{bytes, 1}}, Created: [Directions]time.Time{at}}
	}
	flow := func(peer string) FlowLabels {
		return FlowLabels{Container: long, Workload: Workload{Type: long, Name: long}, PeerKind: PeerExternal, Protocol: ProtoTCP,
			PeerNamespace: long, Peer: peer, PeerWorkloadType: long, Service: long, PeerPod: long, Process: long}
	}
	external := func(city string) ExternalLabels {
		return ExternalLabels{Country: long, ASN: long, Organization: long, City: city, Latitude: long, Longitude: long, Container: long}
	}
	account := func(pod string) AccountState {
		return AccountState{
			Namespace: long, Pod: pod, UIDs: []string{pod}, Total: pair(1000), RetiredExternal: pair(7),
			Flows:   []RowState[FlowLabels]{{Labels: flow(long + "1"), Pair: pair(100), Last: at, Counted: true}, {Labels: flow(long + "2"), Pair: pair(200), Last: at, Counted: true}, {Labels: flow("a\n"), Pair: pair(300), Last: at, Counted: true}, {Labels: flow("a\t"), Pair: pair(400), Last: at, Counted: true}},
			Retired: map[PeerKind]PairState{PeerExternal: pair(5)},
			Health:  []HealthState{{Row: 2, Opened: 1, Created: at}, {Row: 3, Opened: 2, Created: at}},
			Externals: []RowState[ExternalLabels]{{Labels: external("a\n"), Pair: pair(600), Last: at, Counted: true},
				{Labels: external("a\t"), Pair: pair(400), Last: at, Counted: true}},
		}
	}
	waiting := []WaitingState{{Flow: flow(long), External: external(long), Counters: Counters{50, 1}, Start: at}}
	return &State{
		Accounts: []AccountState{account("pod\n"), account("pod\t"), account(long)},
		Points:   []PointState{{Interface: Interface{Point: 1, Name: "veth", Attached: at}, Pod: &Pod{UID: "u", Namespace: long, Name: long, Container: long, Node: long, Zone: long, Workload: Workload{Type: long, Name: long}}}},
		Orphans:  []PointState{{Interface: Interface{Point: 2, Attached: at}, Totals: waiting, Rows: waiting}},
		EarlyHealth: []EarlyHealthState{{UID: "u", Labels: flow(long), Until: at.Add(time.Hour),
			Health: HealthState{Opened: 1, Created: at}}},
	}
}

// What an earlier build kept is bounded when it is taken over, and no byte of it is lost.
func TestRestoredTextIsPlain(t *testing.T) {
	publisher, table, _ := world(0, TableOptions{FlowLimit: 100, ExternalLimit: 100, FlowIdle: time.Hour}, Optional{})
	if err := publisher.Restore(vileState(time.Unix(1e9, 0))); err != nil {
		t.Fatal(err)
	}
	state := publisher.state()
	textsOf(reflect.ValueOf(state), "", func(path, text string) {
		if strings.Contains(path, "UID") || strings.HasSuffix(path, "Interface.Name") { // nobody sees them, and they must match
			return
		}
		if !plain.Is(text, plain.ValueLimit) {
			t.Errorf("%s: got %d bytes, %.40q", path, len(text), text)
		}
	})
	snapshot := table.Snapshot()
	var pods, flowBytes, externals, retired, opened uint64
	for _, s := range snapshot.Pods {
		pods += s.Counters[0].Bytes
	}
	for _, s := range snapshot.Flows {
		flowBytes += s.Counters[0].Bytes
	}
	for _, s := range snapshot.Externals {
		externals += s.Counters[0].Bytes
	}
	for _, s := range snapshot.Retired {
		retired += s.Counters[0].Bytes
	}
	for _, s := range snapshot.RetiredExternals {
		retired += s.Counters[0].Bytes
	}
	for _, s := range snapshot.Health {
		opened += s.Health.Opened
	}
	got := []uint64{pods, flowBytes, externals, retired, opened}
	if want := []uint64{3000, 3000, 3000, 36, 9}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v of pods, flows, externals, retired and opened, want %v", got, want)
	}
	// Two accounts became one, and in each two rows did; long ones stay apart.
	rows := []int{len(snapshot.Pods), len(snapshot.Flows), snapshot.FlowSets, len(snapshot.Externals), snapshot.ExternalSets, len(snapshot.Health)}
	if want := []int{2, 6, 6, 2, 2, 2}; !reflect.DeepEqual(rows, want) {
		t.Errorf("got %v rows, want %v", rows, want)
	}
}

// What a later build kept of kinds that this one does not know is taken over as what is not known, and
// ends nothing: no byte of it is lost.
func TestRestoredKindsAreKnown(t *testing.T) {
	const later = 200
	at := time.Unix(1e9, 0)
	pair := PairState{Counters: [Directions]Counters{{100, 1}}, Created: [Directions]time.Time{at}}
	labels := func(kind PeerKind) FlowLabels {
		return FlowLabels{PeerKind: kind, Locality: later, Protocol: later}
	}
	publisher, table, _ := world(0, TableOptions{FlowLimit: 100, ExternalLimit: 100, FlowIdle: time.Hour}, Optional{})
	waiting := []WaitingState{{Flow: labels(later), Counters: Counters{50, 1}, Start: at}, {Direction: Directions, Counters: Counters{50, 1}, Start: at}}
	err := publisher.Restore(&State{
		Accounts: []AccountState{{
			Namespace: "ns", Pod: "pod", UIDs: []string{"u"}, Total: pair,
			Flows: []RowState[FlowLabels]{
				{Labels: labels(later), Pair: pair, Last: at, Counted: true}, {Labels: labels(later + 1), Pair: pair, Last: at, Counted: true},
			},
			Retired: map[PeerKind]PairState{later: pair, later + 1: pair, PeerOther: pair},
		}},
		Orphans:     []PointState{{Interface: Interface{Point: 2, Attached: at}, Totals: waiting, Rows: waiting}},
		EarlyHealth: []EarlyHealthState{{UID: "u", Labels: labels(later), Until: at.Add(time.Hour), Health: HealthState{Opened: 1, Created: at}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	snapshot := table.Snapshot()
	if len(snapshot.Flows) != 1 || len(snapshot.Retired) != 1 {
		t.Fatalf("got %d flow rows and %d retired ones, want one each", len(snapshot.Flows), len(snapshot.Retired))
	}
	row, retired := snapshot.Flows[0], snapshot.Retired[0]
	got := []string{row.Labels.PeerKind.String(), row.Labels.Locality.String(), row.Labels.Protocol.String(), retired.Labels.String()}
	if want := []string{"other", "unknown", "other", "other"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if row.Counters[0].Bytes != 200 || retired.Counters[0].Bytes != 300 {
		t.Errorf("got %d bytes and %d retired, want 200 and 300", row.Counters[0].Bytes, retired.Counters[0].Bytes)
	}
	if got := publisher.Stats().UnboundBytes; got != 50 {
		t.Errorf("got %d bytes that wait, want 50", got)
	}
	uplinks := NewUplinkTable(UplinkOptions{Limit: 10, Idle: time.Hour, Grace: time.Hour})
	err = NewUplinkPublisher(UplinkPublisherOptions{Table: uplinks}).Restore(&UplinkState{Rows: []RowState[UplinkLabels]{
		{Labels: UplinkLabels{Interface: "eth0", PeerKind: later, Locality: later}, Pair: pair, Last: at, Counted: true},
	}})
	if s := uplinks.Snapshot(); err != nil || s.Rows[0].Labels.PeerKind.String()+s.Rows[0].Labels.Locality.String() != "otherunknown" {
		t.Errorf("got %v, %+v", err, s.Rows)
	}
}

// textsOf calls each with every string in a value.
func textsOf(v reflect.Value, path string, each func(path, text string)) {
	switch v.Kind() {
	case reflect.String:
		each(path, v.String())
	case reflect.Pointer:
		if !v.IsNil() {
			textsOf(v.Elem(), path, each)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() || v.Type().PkgPath() == "net/netip" {
			return
		}
		for i := range v.NumField() {
			textsOf(v.Field(i), path+"."+v.Type().Field(i).Name, each)
		}
	case reflect.Slice:
		for i := range v.Len() {
			textsOf(v.Index(i), path, each)
		}
	}
}

func TestRestoredUplinksArePlain(t *testing.T) {
	at := time.Unix(1e9, 0)
	long := vile + strings.Repeat("a", 1_000_000)
	pair := PairState{Counters: [Directions]Counters{{100, 1}}, Created: [Directions]time.Time{at}}
	table := NewUplinkTable(UplinkOptions{Limit: 10, Idle: time.Hour, Grace: time.Hour})
	publisher := NewUplinkPublisher(UplinkPublisherOptions{Table: table})
	err := publisher.Restore(&UplinkState{
		Uplinks: []UplinkCounters{{Name: "eth\x1b0", Total: pair}},
		Rows: []RowState[UplinkLabels]{
			{Labels: UplinkLabels{Interface: "eth\x1b0", PeerKind: PeerNode, Peer: long, Country: long, ASN: long, Organization: long}, Pair: pair, Last: at, Counted: true},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	textsOf(reflect.ValueOf(table.state()), "", func(path, text string) {
		if !plain.Is(text, plain.ValueLimit) {
			t.Errorf("%s: got %d bytes, %.40q", path, len(text), text)
		}
	})
	if s := table.Snapshot(); len(s.Rows) != 1 || s.Rows[0].Counters[0].Bytes != 100 || s.Rows[0].Labels.Interface != s.Interfaces[0].Labels.Interface {
		t.Errorf("got %+v", s)
	}
}

// An interface whose name is vile is a pod whose name is not.
func TestNameBinderIsPlain(t *testing.T) {
	pod := NameBinder{}.Bind(Interface{Name: "\x1b[2J\u202e\xff"}, nil, nil)
	if !plain.Is(pod.Name, plain.KernelLimit) {
		t.Errorf("got %q", pod.Name)
	}
}
