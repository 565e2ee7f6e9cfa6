// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"slices"
	"time"
)

// Series is a row as it is exported: its labels, and for each direction its
// counters and the start of the epoch of its first byte, zero if it had none.
type Series[L any] struct {
	Namespace, Pod string
	Labels         L
	Counters       [Directions]Counters
	Created        [Directions]time.Time
}

// NoLabels are the labels of a family that has none but the pod's.
type NoLabels struct{}

// Snapshot is the state of a table at one moment: between two batches.
type Snapshot struct {
	// End is that of the last epoch in it: the counters are as of then. Zero before
	// the first one.
	End time.Time

	Pods []Series[NoLabels]
	// Foreign is what of that pods transmitted from addresses that are not theirs.
	Foreign   []Series[NoLabels]
	Flows     []Series[FlowLabels]
	Health    []HealthSeries     // of those flow rows that have some
	Retired   []Series[PeerKind] // flow rows that were idle, by peer kind
	Externals []Series[ExternalLabels]
	// RetiredExternals are the external rows that were idle.
	RetiredExternals []Series[NoLabels]

	// FlowSets and ExternalSets count the label sets that limits apply to.
	FlowSets, ExternalSets int
	// FoldedFlowBytes and FoldedExternalBytes went to rows of the peer or the
	// country "other".
	FoldedFlowBytes, FoldedExternalBytes uint64

	// Exported is what the series of Pods are made of, see [Table.Exported]; Earlier is
	// what forgotten points had.
	Exported []Exported
	Earlier  []Series[NoLabels]

	// Uplinks are those of another table, taken right after this one.
	Uplinks UplinkSnapshot
}

// Snapshot copies the table. The order of series is not defined.
func (t *Table) Snapshot() *Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &Snapshot{
		End:      t.end,
		FlowSets: t.flows.taken, ExternalSets: t.externals.taken,
		FoldedFlowBytes: t.foldedFlow, FoldedExternalBytes: t.foldedEx,
		Exported: slices.Clone(t.exported), Earlier: t.earlierSeries(),
	}
	for n, a := range t.names {
		s.Pods = append(s.Pods, series(n, NoLabels{}, &a.total))
		s.Foreign = append(s.Foreign, series(n, NoLabels{}, &a.foreign))
		for labels, r := range a.flows.rows {
			s.Flows = append(s.Flows, series(n, labels, &r.counterPair))
			if r.health != nil {
				s.Health = append(s.Health, HealthSeries{n.namespace, n.pod, labels, r.health.Health, r.health.created})
			}
		}
		for kind, pair := range a.retired {
			s.Retired = append(s.Retired, series(n, kind, pair))
		}
		for labels, r := range a.externals.rows {
			s.Externals = append(s.Externals, series(n, labels, &r.counterPair))
		}
		if a.retiredEx != (counterPair{}) {
			s.RetiredExternals = append(s.RetiredExternals, series(n, NoLabels{}, &a.retiredEx))
		}
	}
	return s
}

func series[L any](n name, labels L, pair *counterPair) Series[L] {
	return Series[L]{
		Namespace: n.namespace, Pod: n.pod, Labels: labels,
		Counters: pair.counters, Created: pair.created,
	}
}
