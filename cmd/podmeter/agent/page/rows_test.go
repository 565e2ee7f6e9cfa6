// SPDX-License-Identifier: Apache-2.0

package page

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
)

const (
	near    = flows.LocalitySameNode
	unknown = flows.LocalityUnknown
)

var api, client, web = party{flows.PeerPod, "shop", "api"}, party{flows.PeerPod, "shop", "client"}, party{flows.PeerPod, "shop", "web"}

// bare makes the last row that of a pod without a workload, which has its own name.
func bare(with func(*flows.Snapshot)) func(*flows.Snapshot) {
	return func(s *flows.Snapshot) {
		with(s)
		f := &s.Flows[len(s.Flows)-1]
		f.Pod, f.Labels.Workload = f.Labels.Workload.Name, flows.Workload{}
	}
}

// toBare makes the last row one to a pod without a controller.
func toBare(with func(*flows.Snapshot)) func(*flows.Snapshot) {
	return func(s *flows.Snapshot) {
		with(s)
		s.Flows[len(s.Flows)-1].Labels.PeerWorkloadType = flows.BarePod
	}
}

// ofReplica gives the last row to a pod of another name.
func ofReplica(name string, with func(*flows.Snapshot)) func(*flows.Snapshot) {
	return func(s *flows.Snapshot) {
		with(s)
		s.Flows[len(s.Flows)-1].Pod = name
	}
}

// The two ends of an edge on one node are one row, of what each has sent: what is received
// is the same bytes.
func TestMirrors(t *testing.T) {
	toNamed := toPod("shop", "client", unknown)
	toNamed.PeerPod = "client-0"
	toWorkload := toPod("shop", "client", unknown)
	toWorkload.PeerWorkloadType = "deployment"
	for _, c := range []struct {
		name string
		rows []func(*flows.Snapshot)
		want map[edge]pair
	}{
		{"both", []func(*flows.Snapshot){
			withFlow("shop", "client", toPod("shop", "web", near), 10, 200), withFlow("shop", "web", toPod("shop", "client", near), 201, 11),
		}, map[edge]pair{{client, web, near}: {10, 201}}},
		{"the larger alone", []func(*flows.Snapshot){withFlow("shop", "web", toPod("shop", "client", near), 201, 11)},
			map[edge]pair{{client, web, near}: {11, 201}}},
		{"the smaller alone", []func(*flows.Snapshot){withFlow("shop", "client", toPod("shop", "web", near), 10, 200)},
			map[edge]pair{{client, web, near}: {10, 200}}},
		{"among themselves", []func(*flows.Snapshot){withFlow("shop", "web", toPod("shop", "web", near), 50, 50)},
			map[edge]pair{{web, web, near}: {50, 0}}},
		{"of pods elsewhere", []func(*flows.Snapshot){
			withFlow("shop", "client", toPod("shop", "web", flows.LocalitySameZone), 1, 2),
			withFlow("shop", "web", toPod("shop", "client", flows.LocalitySameZone), 7, 8),
		}, map[edge]pair{{client, web, flows.LocalitySameZone}: {1, 2}, {web, client, flows.LocalitySameZone}: {7, 8}}},
		{"not a pod", []func(*flows.Snapshot){withFlow("shop", "web", toInternet, 5, 6)},
			map[edge]pair{{web, party{Kind: flows.PeerExternal}, flows.LocalityExternal}: {5, 6}}},
		{"pods without nodes", []func(*flows.Snapshot){
			withPod("shop", "client", 10, 200), withPod("shop", "web", 201, 11),
			bare(withFlow("shop", "client", toPod("shop", "web", unknown), 10, 200)),
			bare(withFlow("shop", "web", toPod("shop", "client", unknown), 201, 11)),
		}, map[edge]pair{{client, web, near}: {10, 201}}},
		{"pods without nodes and controllers", []func(*flows.Snapshot){
			withPod("shop", "client", 10, 200), withPod("shop", "web", 201, 11),
			toBare(withFlow("shop", "client", toPod("shop", "web", unknown), 10, 200)),
			toBare(withFlow("shop", "web", toPod("shop", "client", unknown), 201, 11)),
		}, map[edge]pair{{client, web, near}: {10, 201}}},
		{"one of which is not metered", []func(*flows.Snapshot){
			withPod("shop", "web", 3, 4), bare(withFlow("shop", "web", toPod("shop", "client", unknown), 3, 4)),
		}, map[edge]pair{{web, client, unknown}: {3, 4}}},
		{"the peer's pod is told", []func(*flows.Snapshot){withPod("shop", "client-0", 4, 3), withFlow("shop", "web", toNamed, 3, 4)},
			map[edge]pair{{client, web, near}: {4, 3}}},
		{"a workload that has the name of a pod", []func(*flows.Snapshot){withPod("shop", "client", 4, 3), withFlow("shop", "web", toWorkload, 3, 4)},
			map[edge]pair{{web, client, unknown}: {3, 4}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make(map[edge]pair)
			for e, r := range edgesOf(snapshotAt(0, c.rows...), nil) {
				got[e] = r.Total
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("edges (-want +got):\n%s", diff)
			}
		})
	}
}

// What is left of a row when one of its series ends has not grown by that.
func TestGrowthWhenSeriesEnd(t *testing.T) {
	const GB = 1_000_000_000
	udp := toPod("shop", "web", near)
	udp.Protocol = flows.ProtoUDP
	toWeb, toAPI, far := toPod("shop", "web", near), toPod("shop", "api", near), toPod("shop", "api", flows.LocalitySameZone)
	for _, c := range []struct {
		name        string
		before, now []func(*flows.Snapshot)
		want        map[edge]row
	}{
		{"one of two replicas",
			[]func(*flows.Snapshot){withFlow("shop", "web", far, 10*GB, 0), ofReplica("web-1", withFlow("shop", "web", far, 10*GB, 0))},
			[]func(*flows.Snapshot){withFlow("shop", "web", far, 10*GB+7, 0)},
			map[edge]row{{web, api, flows.LocalitySameZone}: {pair{10*GB + 7, 0}, pair{7, 0}}}},
		{"one of two replicas, another begins",
			[]func(*flows.Snapshot){withFlow("shop", "web", far, 10*GB, 0), ofReplica("web-1", withFlow("shop", "web", far, 10*GB, 0))},
			[]func(*flows.Snapshot){withFlow("shop", "web", far, 10*GB, 0), ofReplica("web-2", withFlow("shop", "web", far, 5, 1))},
			map[edge]row{{web, api, flows.LocalitySameZone}: {pair{10*GB + 5, 1}, pair{5, 1}}}},
		{"a row is retired",
			[]func(*flows.Snapshot){withFlow("shop", "client", toWeb, 10*GB, 3), withFlow("shop", "client", udp, GB, 4)},
			[]func(*flows.Snapshot){withFlow("shop", "client", toWeb, 10*GB+1, 3)},
			map[edge]row{{client, web, near}: {pair{10*GB + 1, 3}, pair{1, 0}}}},
		{"a retired row comes back", // at 0
			[]func(*flows.Snapshot){withFlow("shop", "client", toWeb, 10*GB, 3), withFlow("shop", "client", udp, GB, 4)},
			[]func(*flows.Snapshot){withFlow("shop", "client", toWeb, 10*GB, 3), withFlow("shop", "client", udp, 9, 1)},
			map[edge]row{{client, web, near}: {pair{10*GB + 9, 4}, pair{9, 1}}}},
		{"the smaller end",
			[]func(*flows.Snapshot){withFlow("shop", "api", toWeb, 10*GB, GB), withFlow("shop", "web", toAPI, GB, 10*GB)},
			[]func(*flows.Snapshot){withFlow("shop", "web", toAPI, GB+2, 10*GB+3)},
			map[edge]row{{api, web, near}: {pair{10*GB + 3, GB + 2}, pair{3, 2}}}},
		{"the larger end",
			[]func(*flows.Snapshot){withFlow("shop", "api", toWeb, 10*GB, GB), withFlow("shop", "web", toAPI, GB, 10*GB)},
			[]func(*flows.Snapshot){withFlow("shop", "api", toWeb, 10*GB+3, GB+2)},
			map[edge]row{{api, web, near}: {pair{10*GB + 3, GB + 2}, pair{3, 2}}}},
		{"the other end begins", // its counters are of what it has sent since
			[]func(*flows.Snapshot){withFlow("shop", "web", toAPI, GB, 10*GB)},
			[]func(*flows.Snapshot){withFlow("shop", "api", toWeb, 5, 6), withFlow("shop", "web", toAPI, GB+6, 10*GB+5)},
			map[edge]row{{api, web, near}: {pair{5, GB + 6}, pair{5, 6}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := edgesOf(snapshotAt(7, c.now...), newTally(snapshotAt(0, c.before...)).flows)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("edges (-want +got):\n%s", diff)
			}
		})
	}
}

// Places are sums of pods as edges are.
func TestGrowthOfPlaces(t *testing.T) {
	p := newPage(&source{})
	swiss := flows.ExternalLabels{Country: "CH"}
	p.remember(newTally(snapshotAt(0, withPlace("shop", "web-0", swiss, 1e10, 0), withPlace("shop", "web-1", swiss, 1e10, 0))))
	s := snapshotAt(7, withPlace("shop", "web-1", swiss, 1e10+8, 0))
	p.remember(newTally(s))
	got := p.describe(s, p.options.Source.Agent()).Places.Rows
	if len(got) != 1 || got[0].row != (row{pair{1e10 + 8, 0}, pair{8, 0}}) {
		t.Errorf("got %+v, want one that has grown by 8", got)
	}
}
