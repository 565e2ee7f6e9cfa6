// SPDX-License-Identifier: Apache-2.0

package page

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/geo"
	"github.com/podmeter/podmeter/metrics"
)

func TestRowsAreThoseThatGrow(t *testing.T) {
	rows := make(map[pod]row)
	for i := range 3 * mostRows {
		grown := uint64(3*mostRows - i)
		rows[pod{"shop", string(rune('a' + i))}] = row{pair{uint64(1000*i) + grown, 1}, pair{grown, 0}} // the later, the larger
	}
	s := top(rows, pod.compare, func(k pod, r row) podRow { return podRow{k.Namespace, k.Name, r} })
	if len(s.Rows) != mostRows || s.Others != 2*mostRows {
		t.Fatalf("got %d rows and %d others, want %d and %d", len(s.Rows), s.Others, mostRows, 2*mostRows)
	}
	var sum pair
	for i, r := range s.Rows {
		if r.Name != string(rune('a'+i)) {
			t.Errorf("row %d: got %s, want the one that grew most of what is left", i, r.Name)
		}
		sum.add(r.Total)
	}
	sum.add(s.Rest.Total)
	var want pair
	for _, r := range rows {
		want.add(r.Total)
	}
	if sum != want {
		t.Errorf("rows and the rest: got %v, want all of %v", sum, want)
	}
}

func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		name  string
		place place
		want  *[2]float64
	}{
		{"coordinates", place{Country: "JP", Latitude: "35.6", Longitude: "139.7"}, &[2]float64{35.6, 139.7}},
		{"country alone", place{Country: "DE"}, &[2]float64{51.1, 10.4}},
		{"half of them", place{Country: "DE", Latitude: "1"}, &[2]float64{51.1, 10.4}},
		{"folded", place{Country: "other"}, nil},
		{"unknown", place{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, newAtRow(c.place, row{}).At); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// balanced is a snapshot in which both identities hold.
func balanced() *flows.Snapshot {
	s := snapshotAt(0, withPod("shop", "web-0", 130, 60), withFlow("shop", "web", toPod("shop", "api", 0), 50, 10),
		withFlow("shop", "web", toInternet, 70, 40), withFlow("shop", "web", flows.FlowLabels{PeerKind: flows.PeerUnattributed}, 1, 2),
		withPlace("shop", "web-0", flows.ExternalLabels{Country: "CH"}, 60, 45))
	s.Retired = []flows.Series[flows.PeerKind]{series("shop", "web-0", flows.PeerExternal, 9, 8)}
	s.RetiredExternals = []flows.Series[flows.NoLabels]{series("shop", "web-0", flows.NoLabels{}, 19, 3)}
	return s
}

func TestBooks(t *testing.T) {
	want := books{Pods: 190, Flows: 173, FlowsRetired: 17, External: 127, Places: 105, PlacesRetired: 22, Unattributed: 3}
	if diff := cmp.Diff(want, newBooks(balanced())); diff != "" {
		t.Errorf("balanced (-want +got):\n%s", diff)
	}
	for name, c := range map[string]struct {
		spoil func(*flows.Snapshot)
		want  uint64
	}{
		"a byte more in a flow":  {func(s *flows.Snapshot) { s.Flows[0].Counters[0].Bytes++ }, 1},
		"a pod too few":          {func(s *flows.Snapshot) { s.Pods = nil }, 190},
		"a place less":           {func(s *flows.Snapshot) { s.Externals[0].Counters[1].Bytes -= 5 }, 5},
		"in the other direction": {func(s *flows.Snapshot) { s.Pods[0].Counters[0].Bytes++; s.Pods[0].Counters[1].Bytes-- }, 2},
		"on another pod":         {withPod("shop", "other", 4, 4), 8},
	} {
		s := balanced()
		c.spoil(s)
		if got := newBooks(s).DifferenceBytes; got != c.want {
			t.Errorf("%s: got a difference of %d, want %d", name, got, c.want)
		}
	}
}

// Rates are over the last five to ten seconds, from the counters' own times.
func TestHistory(t *testing.T) {
	var h history
	for _, c := range []struct {
		at, bytes   int
		span, moved int
	}{
		{0, 1000, 0, 0}, {2, 1200, 2, 200}, {2, 1200, 2, 200}, {4, 1400, 4, 400}, {6, 1600, 6, 600},
		{8, 1800, 8, 800}, {11, 2100, 5, 1100}, {13, 2300, 7, 1300}, {16, 2600, 5, 1600},
		{18, 50, 7, 1650}, // it has begun anew
	} {
		h.add(newTally(snapshotAt(c.at, withPod("shop", "web", uint64(c.bytes), 0))))
		if got := int(h.span().Seconds()); got != c.span || h.moved != (pair{uint64(c.moved), 0}) {
			t.Errorf("at %d s: got %d s and %v moved, want %d s and %d", c.at, got, h.moved, c.span, c.moved)
		}
	}
	h.add(newTally(snapshotAt(20))) // its series are gone
	if h.moved != (pair{1650, 0}) {
		t.Errorf("without the pod: got %v moved, want still 1650", h.moved)
	}
}

// Before the first drain there are no rates, nor a time that could be taken for one.
func TestStateBeforeTheFirstDrain(t *testing.T) {
	s := &source{snapshot: &flows.Snapshot{}}
	got := ask(t, newPage(s))
	if got.AsOf != 0 || got.Watch != 0 || got.LastDrain != 0 || got.GrownSeconds != 0 {
		t.Errorf("got %+v, want no times", got)
	}
	if got.Pods.Rows == nil || got.Edges.Rows == nil || got.Places.Rows == nil {
		t.Error("rows: got null, want none")
	}
}

func TestStateOfTheAgent(t *testing.T) {
	s := &source{snapshot: balanced(), agent: metrics.Agent{
		ConservationErrorBytes: 3, LostBytes: map[string]uint64{"unbound": 4, "no_interface": 5}, LastDrain: noon,
		Interfaces: map[string]int{"attached": 2}, Pods: map[string]int{"metered": 1},
	}}
	got := ask(t, newPage(s))
	want := state{
		Node: "node-a", Version: "1.2.3", Started: got.Started, Now: got.Now, AsOf: noon.UnixMilli(), Watch: noon.UnixMilli(),
		LastDrain: noon.UnixMilli(), ConservationErrorBytes: 3, LostBytes: 9, Waiting: []waitingRow{}, Books: newBooks(balanced()),
		Interfaces: map[string]int{"attached": 2}, PodStates: map[string]int{"metered": 1}, Total: pair{130, 60}, Located: true,
		Attributions: []geo.Attribution{{Text: "IP Geolocation by DB-IP", URL: "https://db-ip.com"}},
		Pods:         got.Pods, Edges: got.Edges, Places: got.Places,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(podRow{}, edgeRow{}, atRow{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.Started == 0 || got.Now < got.Started || len(got.Pods.Rows) != 1 || len(got.Edges.Rows) != 3 || len(got.Places.Rows) != 1 {
		t.Errorf("got %+v", got)
	}
}

// What waits for a pod is told of by interface, as of the same moment as all else: the rows of
// most bytes, and the sum of all.
func TestWaiting(t *testing.T) {
	snapshot := balanced()
	waits := func(name string, sent, received uint64, needs ...string) {
		e := flows.Exported{Name: name, Since: noon.Add(-time.Minute), Waiting: [flows.Directions]flows.Counters{{Bytes: sent}, {Bytes: received}}}
		for _, address := range needs {
			e.Needs = append(e.Needs, netip.MustParseAddr(address))
		}
		snapshot.Exported = append(snapshot.Exported, e)
	}
	waits("bound", 0, 0)
	waits("few", 1, 2)
	waits("<b>", 40, 2, "10.0.0.9", "fd00::9")
	snapshot.Exported[2].Gone = noon
	got := ask(t, newPage(&source{snapshot: snapshot}))
	minuteAgo := noon.Add(-time.Minute).UnixMilli()
	want := []waitingRow{
		{"\ufffdb\ufffd", minuteAgo, noon.UnixMilli(), 42, []string{"10.0.0.9", "fd00::9"}}, {"few", minuteAgo, 0, 3, []string{}},
	}
	if diff := cmp.Diff(want, got.Waiting); diff != "" || got.UnboundBytes != 45 {
		t.Errorf("got a sum of %d, want 45 (-want +got):\n%s", got.UnboundBytes, diff)
	}
	for i := range 2 * mostRows {
		waits("veth"+strconv.Itoa(i), 1, 0)
	}
	if got := ask(t, newPage(&source{snapshot: snapshot})); len(got.Waiting) != mostRows || got.UnboundBytes != 45+2*mostRows {
		t.Errorf("got %d rows and %d bytes, want %d and %d", len(got.Waiting), got.UnboundBytes, mostRows, 45+2*mostRows)
	}
}

// The rate of all pods is that of their rows: of the same counters over the same time, also of
// rows that are not sent, of pods that begin, and not of those that have ended.
func TestRateOfAllPodsIsThatOfTheRows(t *testing.T) {
	s := &source{}
	p := newPage(s)
	var got state
	for i, seconds := range []int{0, 4, 6} { // the busiest of it passes before the last two seconds
		snapshot := snapshotAt(seconds)
		for n := range 2 * mostRows {
			withPod("shop", "web-"+strconv.Itoa(n), []uint64{0, 1000, 1100}[i], []uint64{5, 25, 26}[i])(snapshot)
		}
		if i == 0 {
			withPod("shop", "ends", 1e9, 1e9)(snapshot)
		} else {
			withPod("shop", "begins", 7, 8)(snapshot)
		}
		s.put(snapshot)
		got = ask(t, p)
		p.answer = nil // of which all that ask would get a share
	}
	sum := got.Pods.Rest
	for _, r := range got.Pods.Rows {
		sum.add(r.row)
	}
	want := pair{2*mostRows*1100 + 7, 2*mostRows*21 + 8}
	if got.Grown != want || sum.Grown != want || got.GrownSeconds != 6 {
		t.Errorf("got %v, rows of %v, in %v s, want %v in 6 s", got.Grown, sum.Grown, got.GrownSeconds, want)
	}
}
