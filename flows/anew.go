// SPDX-License-Identifier: Apache-2.0

package flows

// BeginAnew takes from a state all that an agent may have shown more of since: then a counter
// that goes on from it would go down. What flow and external series had is retired, so that
// they begin anew and sums stay; counters that are no pod's bytes begin at 0. Those of pods
// follow from the kernel's and go on.
func (s *State) BeginAnew() {
	for i := range s.Accounts {
		s.Accounts[i].beginAnew()
	}
	s.FoldedFlow, s.FoldedExternal = 0, 0
	s.Stats.beginAnew()
}

func (a *AccountState) beginAnew() {
	if a.Retired == nil {
		a.Retired = make(map[PeerKind]PairState)
	}
	for i := range a.Flows {
		row := &a.Flows[i]
		a.Retired[row.Labels.PeerKind] = a.Retired[row.Labels.PeerKind].with(row.Pair)
	}
	for i := range a.Externals {
		a.RetiredExternal = a.RetiredExternal.with(a.Externals[i].Pair)
	}
	a.Flows, a.Health, a.Externals, a.Foreign = nil, nil, nil, PairState{}
}

// BeginAnew is that of [State] for uplinks.
func (s *UplinkState) BeginAnew() {
	retired := make(map[string]PairState)
	for i := range s.Rows {
		name := s.Rows[i].Labels.Interface
		retired[name] = retired[name].with(s.Rows[i].Pair)
	}
	for i := range s.Uplinks {
		u := &s.Uplinks[i]
		u.Retired = u.Retired.with(retired[u.Name])
	}
	s.Rows, s.Folded = nil, 0
	s.Stats.beginAnew()
}

// beginAnew keeps what must never be forgotten, and what is no counter.
func (s *Stats) beginAnew() {
	*s = Stats{ConservationErrorBytes: s.ConservationErrorBytes, UnboundBytes: s.UnboundBytes, LastEpoch: s.LastEpoch}
}

// with returns the sum of both.
func (p PairState) with(o PairState) PairState {
	sum, more := p.pair(), o.pair()
	sum.merge(&more)
	return sum.state()
}
