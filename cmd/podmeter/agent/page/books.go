// SPDX-License-Identifier: Apache-2.0

package page

import "github.com/podmeter/podmeter/flows"

// books are the two identities that hold in every snapshot, for each pod and direction:
// flows and retired flows are the pod's; external rows and retired ones are the flows
// of external peers. All are bytes of all pods in both directions.
type books struct {
	Pods            uint64 `json:"pods"`
	Flows           uint64 `json:"flows"`
	FlowsRetired    uint64 `json:"flowsRetired"`
	External        uint64 `json:"external"`
	Places          uint64 `json:"places"`
	PlacesRetired   uint64 `json:"placesRetired"`
	Unattributed    uint64 `json:"unattributed"`
	DifferenceBytes uint64 `json:"difference"` // of both identities, absolute; must be 0
}

func newBooks(s *flows.Snapshot) (b books) {
	pods, external := make(map[pod]pair, len(s.Pods)), make(map[pod]pair, len(s.Pods))
	for i := range s.Pods {
		b.Pods += enter(pods, &s.Pods[i])
	}
	rows := make(map[pod]pair, len(s.Pods))
	for i := range s.Flows {
		f := &s.Flows[i]
		b.Flows += enter(rows, f)
		b.kind(f.Labels.PeerKind, bytesOf(f), pod{f.Namespace, f.Pod}, external)
	}
	for i := range s.Retired {
		r := &s.Retired[i]
		b.FlowsRetired += enter(rows, r)
		b.kind(r.Labels, bytesOf(r), pod{r.Namespace, r.Pod}, external)
	}
	places := make(map[pod]pair, len(s.Pods))
	for i := range s.Externals {
		b.Places += enter(places, &s.Externals[i])
	}
	for i := range s.RetiredExternals {
		b.PlacesRetired += enter(places, &s.RetiredExternals[i])
	}
	b.DifferenceBytes = difference(pods, rows) + difference(external, places)
	return b
}

// enter adds a series to its pod and returns its bytes.
func enter[L any](to map[pod]pair, s *flows.Series[L]) uint64 {
	bytes := bytesOf(s)
	add(to, pod{s.Namespace, s.Pod}, bytes)
	return bytes.sum()
}

func (b *books) kind(kind flows.PeerKind, bytes pair, of pod, external map[pod]pair) {
	switch kind {
	case flows.PeerExternal:
		b.External += bytes.sum()
		add(external, of, bytes)
	case flows.PeerUnattributed:
		b.Unattributed += bytes.sum()
	}
}

// difference is the sum of all differences between two sides, absolute.
func difference(left, right map[pod]pair) (bytes uint64) {
	for key, l := range left {
		r := right[key]
		for d := range l {
			bytes += max(l[d], r[d]) - min(l[d], r[d])
		}
	}
	for key, r := range right {
		if _, known := left[key]; !known {
			bytes += r.sum()
		}
	}
	return bytes
}
