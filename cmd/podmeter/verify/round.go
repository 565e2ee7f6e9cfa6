// SPDX-License-Identifier: Apache-2.0

package verify

import "github.com/podmeter/podmeter/flows"

// MaxTries is how often an interface is looked at until no packet moves meanwhile.
const MaxTries = 10

// Observation is one look at both sides. It is made in this order: the kernel's
// counters before, a drain that publishes all that was counted until then, the agent's
// status, a scrape, the status again, the kernel's counters after.
type Observation struct {
	Before, After Kernel
	First, Second *Agent
	Metrics       Exposition
}

// Round judges all interfaces of an agent, in as many observations as that takes.
type Round struct {
	tries      int
	cases      map[id]*interfaceCase
	order      []id
	invariants []Invariant
	last       *Observation
}

// id is one attachment to an interface in one direction.
type id struct {
	index     int
	since     int64 // ns
	direction flows.Direction
}

// interfaceCase is what is known of one.
type interfaceCase struct {
	row Row
	// judged is whether that is the last word.
	judged bool
	// first and seen are the tries in which it was there first and last.
	first, seen int
	// unequal and absent count the tries that found it so.
	unequal, absent int
}

// NewRound returns a round that has seen nothing.
func NewRound() *Round { return &Round{cases: make(map[id]*interfaceCase)} }

// Try takes an observation, and reports whether another can add something.
func (r *Round) Try(o *Observation) (again bool) {
	r.tries++
	r.last = o
	first := make(map[id]*Interface)
	for i := range o.First.Interfaces {
		first[idOf(&o.First.Interfaces[i], 0)] = &o.First.Interfaces[i]
	}
	for n := range o.Second.Interfaces {
		i := &o.Second.Interfaces[n]
		if i.State == stateGone {
			continue
		}
		for d := range flows.Direction(flows.Directions) {
			if r.look(o, first[idOf(i, 0)], i, d) {
				again = true
			}
		}
	}
	r.takeInvariants(append(o.Metrics.Invariants(), o.podsOfInterfaces()...))
	return again && r.tries < MaxTries
}

func idOf(i *Interface, d flows.Direction) id { return id{i.Index, i.Since.UnixNano(), d} }

// look judges one interface in one direction, of which the agent said first and second
// what it knows, and reports whether that was not the last word.
func (r *Round) look(o *Observation, first, second *Interface, d flows.Direction) (again bool) {
	c := r.caseOf(second, d)
	if c.judged {
		return false
	}
	before, hadBefore := o.Before[second.Index]
	after, there := o.After[second.Index]
	if !there || after.Name != second.Name {
		c.absent++
		c.row = second.Judge(Device{}, d).absent()
		return true
	}
	row := second.Judge(after, d)
	still := first != nil && hadBefore && first.view(before, d) == second.view(after, d) &&
		first.counted(before, d) == second.counted(after, d)
	switch {
	case !still && row.Verdict != Settling:
		row = row.moves()
	case row.Verdict == Unequal:
		c.unequal++
	}
	if still || c.row.Verdict != Unequal {
		c.row = row
	}
	c.judged = c.row.Verdict.final()
	return !c.judged
}

func (r *Round) caseOf(i *Interface, d flows.Direction) *interfaceCase {
	key := idOf(i, d)
	c := r.cases[key]
	if c == nil {
		c = &interfaceCase{first: r.tries}
		r.cases[key] = c
		r.order = append(r.order, key)
	}
	c.seen = r.tries
	return c
}

// absent is the row of an interface that the agent meters and the kernel does not show.
func (r Row) absent() Row {
	r.Kernel, r.Difference, r.Verdict = flows.Counters{}, Delta{}, Unknown
	r.Why = "there is no such interface here: the agent is in another network namespace"
	return r
}

func (r *Round) takeInvariants(all []Invariant) {
	for _, i := range all {
		known := false
		for n := range r.invariants {
			if known = r.invariants[n].Name == i.Name; known {
				r.invariants[n].merge(i)
				break
			}
		}
		if !known {
			r.invariants = append(r.invariants, i)
		}
	}
}

// confirmed is how often an interface has to be found unequal, or absent: a packet may
// be counted on one side and not yet on the other, and an interface may have just gone.
const confirmed = 2

// verdict is the last word on one interface; ok is whether there is one: what comes or
// goes meanwhile is no fault.
func (r *Round) verdict(c *interfaceCase) (row Row, ok bool) {
	row = c.row
	gone, came := c.seen < r.tries, c.first > 1
	switch {
	case c.judged, c.unequal >= confirmed:
		return row, true
	case gone || came:
		return row, false
	case row.Verdict == Unequal:
		return row.moves(), true
	case row.Verdict == Unknown && c.absent < confirmed:
		return row, false
	}
	return row, true
}

// Report returns what the observations have shown.
func (r *Round) Report() *Report {
	report := &Report{Tries: r.tries, Invariants: r.invariants}
	for _, key := range r.order {
		if row, ok := r.verdict(r.cases[key]); ok {
			report.Rows = append(report.Rows, row)
		}
	}
	if r.last != nil {
		report.describe(r.last)
	}
	report.sort()
	return report
}
