// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"cmp"
	"slices"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
)

// topOf is how many peers and places of a pod are shown.
const topOf = 3

// view is what the screen shows at a moment.
type view struct {
	elapsed time.Duration
	pods    []podView // by name
}

// podView is a pod's line.
type podView struct {
	name verify.Pod
	// moved is in bytes, indexed by [flows.Direction].
	moved [flows.Directions]uint64
	// rate is in bits a second, both directions.
	rate          float64
	peers, places []string // those with the most bytes first
}

// newView reads a view out of metrics. last is the one before, for rates.
func newView(e verify.Exposition, elapsed time.Duration, last *view) *view {
	v := &view{elapsed: elapsed}
	pods := make(map[verify.Pod]*podView)
	for direction := range flows.Direction(flows.Directions) {
		for name, sum := range e.Sums(verify.Series(verify.FamilyPod, direction, verify.Bytes), nil) {
			if pods[name] == nil {
				pods[name] = &podView{name: name}
			}
			pods[name].moved[direction] = sum
		}
	}
	peers, places := tops(e, verify.FamilyFlow, peerOf), tops(e, verify.FamilyExternal, placeOf)
	for name, p := range pods {
		p.peers, p.places = peers[name], places[name]
		p.rate = last.rateTo(p, elapsed)
		v.pods = append(v.pods, *p)
	}
	slices.SortFunc(v.pods, func(a, b podView) int { return cmp.Compare(a.name.String(), b.name.String()) })
	return v
}

// rateTo is the rate of a pod since the view, 0 if there is none.
func (v *view) rateTo(p *podView, elapsed time.Duration) float64 {
	if v == nil || elapsed <= v.elapsed {
		return 0
	}
	bytes := p.moved[flows.Transmit] + p.moved[flows.Receive]
	for _, before := range v.pods {
		if before.name == p.name {
			bytes -= before.moved[flows.Transmit] + before.moved[flows.Receive]
		}
	}
	return 8 * float64(bytes) / (elapsed - v.elapsed).Seconds()
}

// total is what all pods moved, and their rate.
func (v *view) total() (moved [flows.Directions]uint64, rate float64) {
	for _, p := range v.pods {
		for direction, bytes := range p.moved {
			moved[direction] += bytes
		}
		rate += p.rate
	}
	return moved, rate
}

// tops ranks what a family's labels name, by pod and by bytes in both
// directions; what is named by "" is left out.
func tops(e verify.Exposition, family string, name func(labels map[string]string) string) map[verify.Pod][]string {
	sums := make(map[verify.Pod]map[string]float64)
	for direction := range flows.Direction(flows.Directions) {
		for _, s := range e[verify.Series(family, direction, verify.Bytes)] {
			what := name(s.Labels)
			if what == "" || s.Value == 0 {
				continue
			}
			if sums[s.Pod()] == nil {
				sums[s.Pod()] = make(map[string]float64)
			}
			sums[s.Pod()][what] += s.Value
		}
	}
	ranks := make(map[verify.Pod][]string, len(sums))
	for pod, of := range sums {
		ranks[pod] = ranked(of)
	}
	return ranks
}

// ranked returns the keys of the largest values.
func ranked(values map[string]float64) []string {
	var keys []string
	for key := range values {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(values[b], values[a]), cmp.Compare(a, b))
	})
	return keys[:min(len(keys), topOf)]
}

// peerOf names the peer of a flow row; external ones have a place instead.
func peerOf(labels map[string]string) string {
	kind, peer := labels["peer_kind"], labels["peer"]
	switch {
	case kind == flows.PeerExternal.String():
		return ""
	case peer == "":
		return kind
	case kind == flows.PeerPod.String() || kind == flows.PeerService.String():
		return verify.Pod{Namespace: labels["peer_namespace"], Name: peer}.String()
	}
	return kind + " " + peer
}

// placeOf names the place of an external row.
func placeOf(labels map[string]string) string {
	city, country := labels["city"], labels["country"]
	switch {
	case city != "" && country != "":
		return city + ", " + country
	case city+country != "":
		return city + country
	}
	return "unknown place"
}
