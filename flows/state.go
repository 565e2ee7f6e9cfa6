// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/podmeter/podmeter/flows/plain"
)

// State is all that a publisher and its table know, to be written down and given
// to the next ones. Which label sets were folded lately is not in it.
type State struct {
	Accounts        []AccountState
	Points, Orphans []PointState
	EarlyHealth     []EarlyHealthState
	// Past is when pods had their last interface that are bound to none now, by UID.
	Past map[string]time.Time
	// FoldedFlow and FoldedExternal are the bytes that limits folded.
	FoldedFlow, FoldedExternal uint64
	Stats                      Stats
}

// AccountState is the account of one namespace and pod name.
type AccountState struct {
	Namespace, Pod string
	UIDs           []string // of the living pods of that name
	Gone           time.Time
	Total          PairState
	Flows          RowStates[FlowLabels]
	Health         HealthStates // of those rows of Flows that have some
	Externals      RowStates[ExternalLabels]
	Retired        map[PeerKind]PairState

	RetiredExternal PairState
	// Earlier is the part of Total that observation points had which are forgotten; nil in
	// a state of before this was recorded.
	Earlier *[Directions]Counters `cbor:",omitempty"`
	// Foreign is what was transmitted from addresses that are not the pod's.
	Foreign PairState
}

// PairState is a counter for each direction and the start of its first epoch.
type PairState struct {
	_        struct{} `cbor:",toarray"`
	Counters [Directions]Counters
	Created  [Directions]time.Time
}

// PointState is an observation point. Pod is nil while it is unbound.
type PointState struct {
	Interface Interface
	Pod       *Pod
	Totals    []WaitingState
	Rows      []WaitingState
	Seen      []netip.Addr
	// Exported is what the pod's series have of the point, nil of one that is unbound and
	// in a state of before this was recorded. Partial is as in [Exported].
	Exported *[Directions]Counters `cbor:",omitempty"`
	Partial  bool                  `cbor:",omitempty"`
	Shown    []ShownState          // the same, and what was sent from each
}

// WaitingState is what waits for a point's pod.
type WaitingState struct {
	Direction Direction
	Flow      FlowLabels
	External  ExternalLabels
	Counters  Counters
	Start     time.Time
}

// errNotEmpty keeps a state from being restored over another.
var errNotEmpty = errors.New("there is something already")

// Restore makes the publisher and its table go on from a state. It comes before
// the first epoch.
func (p *Publisher) Restore(s *State) error {
	if err := p.options.Table.restore(s); err != nil {
		return fmt.Errorf("restore table: %w", err)
	}
	for i := range s.Points {
		pt := p.point(&s.Points[i])
		p.points[pt.Point] = pt
	}
	for i := range s.Orphans {
		p.orphans = append(p.orphans, p.point(&s.Orphans[i]))
	}
	p.restorePast(s.Past)
	p.options.Table.setExported(p.exportedList())
	p.early.restore(s.EarlyHealth)
	p.stats = s.Stats
	p.account(&Epoch{End: s.Stats.LastEpoch})
	return nil
}

func (p *Publisher) restorePast(past map[string]time.Time) {
	for uid, at := range past {
		bound(plain.MessageLimit, &uid) // as those of pods
		p.past[uid] = at
	}
}

// state returns what is known now. The caller holds the table.
func (p *Publisher) state() *State {
	s := p.options.Table.state()
	for _, pt := range p.points {
		s.Points = append(s.Points, pt.state())
	}
	for _, pt := range p.orphans {
		s.Orphans = append(s.Orphans, pt.state())
	}
	s.EarlyHealth, s.Past = p.early.state(), maps.Clone(p.past)
	s.Stats = p.Stats()
	return s
}

func (pt *point) state() PointState {
	s := PointState{Interface: pt.Interface, Pod: pt.pod, Seen: slices.Collect(maps.Keys(pt.seen)), Shown: shownState(pt.seen)}
	if pt.waiting == nil {
		exported := pt.exported
		s.Exported, s.Partial = &exported, pt.partial
		return s
	}
	for key, sum := range pt.waiting.totals {
		s.Totals = append(s.Totals, WaitingState{Direction: key.direction, Counters: sum.Counters, Start: sum.start})
	}
	for key, at := range pt.waiting.rows {
		labels, sum := pt.waiting.labels(&key), pt.waiting.sums[at]
		s.Rows = append(s.Rows, WaitingState{
			Direction: key.direction, Flow: labels.flow, External: labels.external,
			Counters: sum.Counters, Start: sum.start,
		})
	}
	return s
}

// point returns the point that a state is of.
func (p *Publisher) point(s *PointState) *point {
	pt := &point{Interface: s.Interface, pod: s.Pod}
	if pt.pod != nil {
		pt.pod.bound()
		pt.pod.complete()
		pt.partial = s.Partial || s.Exported == nil
		if s.Exported != nil {
			pt.exported = *s.Exported
		}
		return pt
	}
	pt.waiting, pt.stored = newBatch(time.Time{}, time.Time{}, p.labels), make(map[rowLabels]*rowLabels)
	pt.seen = make(map[netip.Addr]shown)
	for _, address := range s.Seen {
		pt.seen[address] = shown{}
	}
	for i := range s.Shown {
		pt.seen[s.Shown[i].Address] = s.Shown[i].shown()
	}
	isNone := func(w WaitingState) bool { return w.Direction >= Directions }
	for _, w := range slices.DeleteFunc(s.Totals, isNone) {
		pt.waiting.addTotal(unknown, w.Direction, amount{w.Counters, w.Start})
	}
	for _, w := range slices.DeleteFunc(s.Rows, isNone) {
		w.Flow.bound()
		w.External.bound()
		pt.addWaiting(w.Direction, &rowLabels{w.Flow, w.External}, amount{w.Counters, w.Start})
	}
	return pt
}

// complete gives a pod that an earlier build bound without a workload its own.
func (p *Pod) complete() {
	if !strings.HasPrefix(p.UID, interfaceUID) {
		p.Workload = p.OwnWorkload()
	}
}

// state returns the table's part of a state. The caller holds its lock.
func (t *Table) state() *State {
	s := &State{FoldedFlow: t.foldedFlow, FoldedExternal: t.foldedEx}
	uids := make(map[*account][]string, len(t.names))
	for uid, a := range t.pods {
		uids[a] = append(uids[a], uid)
	}
	s.Accounts = make([]AccountState, 0, len(t.names))
	for _, a := range t.names {
		s.Accounts = append(s.Accounts, a.state(uids[a]))
	}
	return s
}

func (a *account) state(uids []string) AccountState {
	s := AccountState{
		Namespace: a.namespace, Pod: a.pod, UIDs: uids, Gone: a.gone, Total: a.total.state(),
		Flows: a.flows.state(), Externals: a.externals.state(), RetiredExternal: a.retiredEx.state(), Foreign: a.foreign.state(),
		Retired: make(map[PeerKind]PairState, len(a.retired)),
	}
	for kind, pair := range a.retired {
		s.Retired[kind] = pair.state()
	}
	earlier := a.earlier
	s.Earlier = &earlier
	s.Health = healthState(s.Flows)
	return s
}

func (p *counterPair) state() PairState { return PairState{Counters: p.counters, Created: p.created} }

func (s PairState) pair() counterPair { return counterPair{s.Counters, s.Created} }

func (t *Table) restore(s *State) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.names) > 0 {
		return errNotEmpty
	}
	t.foldedFlow, t.foldedEx, t.end = s.FoldedFlow, s.FoldedExternal, s.Stats.LastEpoch
	for i := range s.Accounts {
		t.restoreAccount(&s.Accounts[i])
	}
	for _, a := range t.names {
		t.flows.taken += a.flows.counted
		t.externals.taken += a.externals.counted
	}
	return nil
}

func (t *Table) restoreAccount(s *AccountState) {
	bound(plain.LabelLimit, &s.Namespace)
	bound(plain.NameLimit, &s.Pod)
	n := name{s.Namespace, s.Pod}
	a := t.names[n]
	if a == nil {
		a = &account{name: n, gone: s.Gone, retired: make(map[PeerKind]*counterPair)}
		t.names[n] = a
	}
	a.restore(s)
	for _, uid := range s.UIDs {
		bound(plain.MessageLimit, &uid) // nobody sees it
		t.pods[uid] = a
	}
}

// restore adds a state to an account.
func (a *account) restore(s *AccountState) {
	a.living += len(s.UIDs)
	if s.Gone.After(a.gone) {
		a.gone = s.Gone
	}
	if a.living > 0 {
		a.gone = time.Time{}
	}
	total, external, foreign := s.Total.pair(), s.RetiredExternal.pair(), s.Foreign.pair()
	a.total.merge(&total)
	a.retiredEx.merge(&external)
	a.foreign.merge(&foreign)
	a.restoreEarlier(s.Earlier, total.counters)
	for kind, state := range s.Retired {
		kind.bound()
		if pair := state.pair(); a.retired[kind] == nil {
			a.retired[kind] = &pair
		} else {
			a.retired[kind].merge(&pair)
		}
	}
	a.flows.restore(s.Flows, (*FlowLabels).bound)
	restoreHealth(&a.flows, s.Flows, s.Health)
	a.externals.restore(s.Externals, (*ExternalLabels).bound)
}
