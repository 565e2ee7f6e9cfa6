// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"fmt"

	"github.com/podmeter/podmeter/flows"
)

// Parts is what the series of each pod must be, by what the agent says of its
// interfaces and of earlier ones.
func (a *Agent) Parts() map[Pod]Pair {
	parts := make(map[Pod]Pair)
	add := func(pod Pod, counters Pair) {
		sum := parts[pod]
		for d := range sum {
			sum[d].Add(counters[d])
		}
		parts[pod] = sum
	}
	for i := range a.Interfaces {
		if i := &a.Interfaces[i]; i.Pod != (Pod{}) {
			add(i.Pod, i.Exported)
		}
	}
	for i := range a.HostPods {
		if p := &a.HostPods[i]; p.Pod != (Pod{}) {
			add(p.Pod, p.Exported)
		}
	}
	for pod, counters := range a.Earlier {
		add(pod, counters)
	}
	return parts
}

// podsOfInterfaces checks that each pod's series are the sum of what they have of its
// interfaces and of earlier ones. The scrape lies between both statuses, and counters
// do not go down: where packets move, a series lies between both sums.
func (o *Observation) podsOfInterfaces() (all []Invariant) {
	first, second := o.First.Parts(), o.Second.Parts()
	for direction := range flows.Direction(flows.Directions) {
		for _, u := range []Unit{Bytes, Packets} {
			i := Invariant{Name: fmt.Sprintf("interfaces + earlier interfaces = pod, %s %s", direction, u)}
			series := o.Metrics.Sums(Series(FamilyPod, direction, u), nil)
			for pod := range second {
				low, high := u.of(first[pod][direction]), u.of(second[pod][direction])
				if low > high { // the name's series ended, and began anew
					continue
				}
				i.Holders++
				if value := series[pod]; value < low || value > high {
					i.Faults = append(i.Faults, Fault{Of: pod.String(), Left: nearest(value, low, high), Right: value})
				}
			}
			i.strangers(series, first, second)
			i.sort()
			all = append(all, i)
		}
	}
	return all
}

// strangers adds the series of pods that neither status knows of.
func (i *Invariant) strangers(series map[Pod]uint64, first, second map[Pod]Pair) {
	for pod, value := range series {
		_, before := first[pod]
		_, after := second[pod]
		if !before && !after && value != 0 {
			i.Holders++
			i.Faults = append(i.Faults, Fault{Of: pod.String(), Right: value})
		}
	}
}

// nearest is the bound that a value is beyond.
func nearest(value, low, high uint64) uint64 {
	if value < low {
		return low
	}
	return high
}
