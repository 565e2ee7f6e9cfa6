// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// ExportedStatus is what the series of a pod have of its observation points, arrays
// indexed by flows.Direction. For each pod its series are the sum of Exported of its
// interfaces, and of [Status].Earlier.
type ExportedStatus struct {
	// Exported is on the series of the interface's pod; Waiting will be once the pod is
	// known.
	Exported [flows.Directions]flows.Counters `json:"exported"`
	Waiting  [flows.Directions]flows.Counters `json:"waiting"`
	// ExportedPartly is whether Exported lacks what a build before it was recorded has
	// published.
	ExportedPartly bool `json:"exportedPartly,omitempty"`
}

// EarlierStatus is what the series of a pod's name have of interfaces that are metered
// no more.
type EarlierStatus struct {
	Namespace string                           `json:"namespace"`
	Pod       string                           `json:"pod"`
	Exported  [flows.Directions]flows.Counters `json:"exported"`
}

// OrphanStatus is an interface that vanished before its pod was known. What it counted
// is lost ten minutes after Gone if the pod is not known by then.
type OrphanStatus struct {
	Name    string                           `json:"name"`
	Gone    time.Time                        `json:"gone"`
	Waiting [flows.Directions]flows.Counters `json:"waiting"`
}

// WaitingStatus is an interface whose bytes wait for its pod.
type WaitingStatus struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
	// Since is when the first of these bytes was counted, Gone when the interface vanished, if
	// it has.
	Since time.Time `json:"since"`
	Gone  time.Time `json:"gone,omitzero"`
	Bytes uint64    `json:"bytes"` // in both directions
	// Needs are addresses that a pod of this node would have to have, or some of them.
	Needs []string `json:"needs,omitempty"`
}

// attachmentID identifies an attachment: ifindexes come back.
type attachmentID struct {
	point    flows.Point
	attached int64 // ns
}

// exported is what the series were made of at one moment, by attachment.
type exported struct {
	of      map[attachmentID]flows.Exported
	earlier []flows.Series[flows.NoLabels]
}

// exported returns what the table's series are made of now.
func (a *Agent) exported() exported {
	s := &flows.Snapshot{}
	s.Exported, s.Earlier = a.table.Exported()
	a.amend(s)
	e := exported{of: make(map[attachmentID]flows.Exported, len(s.Exported)), earlier: s.Earlier}
	for _, point := range s.Exported {
		e.of[attachmentID{point.Point, point.Attached.UnixNano()}] = point
	}
	return e
}

// take returns the part of an attachment, which is then none of the rest any more.
func (e *exported) take(point flows.Point, attached time.Time) ExportedStatus {
	id := attachmentID{point, attached.UnixNano()}
	found := e.of[id]
	delete(e.of, id)
	return ExportedStatus{Exported: found.Counters, Waiting: found.Waiting, ExportedPartly: found.Partial}
}

// waiting lists the interfaces whose bytes wait, those of most bytes first.
func (e *exported) waiting() (all []WaitingStatus) {
	for _, point := range e.of {
		if !point.Waits() {
			continue
		}
		waiting := WaitingStatus{
			Name: point.Name, Index: int(point.Point), Since: point.Since, Gone: point.Gone,
			Bytes: point.Waiting[flows.Transmit].Bytes + point.Waiting[flows.Receive].Bytes,
		}
		for _, address := range point.Needs {
			waiting.Needs = append(waiting.Needs, address.String())
		}
		all = append(all, waiting)
	}
	slices.SortFunc(all, func(a, b WaitingStatus) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Index, b.Index), a.Since.Compare(b.Since))
	})
	return all
}

// rest returns what nobody has taken: of each pod that has some, and of interfaces that
// vanished unbound.
func (e *exported) rest() (earlier []EarlierStatus, orphans []OrphanStatus) {
	sums := make(map[[2]string][flows.Directions]flows.Counters)
	add := func(namespace, pod string, counters [flows.Directions]flows.Counters) {
		sum := sums[[2]string{namespace, pod}]
		for d := range sum {
			sum[d].Add(counters[d])
		}
		sums[[2]string{namespace, pod}] = sum
	}
	for _, s := range e.earlier {
		add(s.Namespace, s.Pod, s.Counters)
	}
	for _, point := range e.of {
		if point.Pod != nil {
			add(point.Pod.Namespace, point.Pod.Name, point.Counters)
		} else if point.Waiting != ([flows.Directions]flows.Counters{}) {
			orphans = append(orphans, OrphanStatus{Name: point.Name, Gone: point.Gone, Waiting: point.Waiting})
		}
	}
	for name, sum := range sums {
		earlier = append(earlier, EarlierStatus{Namespace: name[0], Pod: name[1], Exported: sum})
	}
	slices.SortFunc(earlier, func(a, b EarlierStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	slices.SortFunc(orphans, func(a, b OrphanStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Gone.Compare(b.Gone))
	})
	return earlier, orphans
}

// amend lets a test change what is exported.
func (a *Agent) amend(s *flows.Snapshot) {
	if a.options.Amend != nil {
		a.options.Amend(s)
	}
}
