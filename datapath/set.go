// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/flows"
)

// set is one of the two groups of maps that programs write in turn. All methods
// but those of the embedded totals want it frozen: no program writes it.
type set struct {
	*totals
	// flows is the map that this build's programs write, and front what is before it.
	flows, front flowMap
	// inserted is how many entries all programs have created in maps of flows.
	inserted *ebpf.Variable
	// outgoing are maps that only the programs of earlier builds wrote.
	outgoing []outgoing
	// health is nil where sockets are not looked at.
	health *healthTable
}

// readFlows appends the set's flows to records, and says how many of these are from fronts,
// which come first. Each is of one entry.
func (s *set) readFlows(from frozen, records []flows.Record) (_ []flows.Record, inFront int, err error) {
	before := len(records)
	for _, front := range []bool{true, false} {
		for _, m := range s.maps(front) {
			if records, err = m.read(from, records); err != nil {
				return records, inFront, err
			}
		}
		if front {
			inFront = len(records) - before
		}
	}
	return records, inFront, nil
}

// maps are those of flows, or those in front of them.
func (s *set) maps(front bool) []flowMap {
	all := []flowMap{s.flows}
	if front {
		all = []flowMap{s.front}
	}
	for _, o := range s.outgoing {
		if o.front == front {
			all = append(all, o.flowMap)
		}
	}
	return all
}

// readable reports whether this build can read all that is in the set.
func (s *set) readable() bool {
	return !slices.ContainsFunc(s.outgoing, func(o outgoing) bool {
		_, lost := o.flowMap.(unreadable)
		return lost
	})
}

// created returns how many entries programs have made in the set's maps of flows.
func (s *set) created() (entries uint64, err error) {
	if err := s.inserted.Get(&entries); err != nil {
		return 0, fmt.Errorf("read insertions: %w", err)
	}
	return entries, nil
}

// clear empties the set of the flows that were read and returns the bytes of
// those that are left then, which must not be. The outgoing maps have served
// their time.
func (s *set) clear() (missed uint64, err error) {
	for _, m := range s.maps(false) {
		missing, err := m.clear()
		missed += missing
		if err != nil {
			return missed, err
		}
	}
	if err := s.health.clear(); err != nil {
		return missed, err
	}
	if err := s.inserted.Set(uint64(0)); err != nil {
		return missed, fmt.Errorf("reset insertions: %w", err)
	}
	return missed, s.discardOutgoing()
}

// discardOutgoing is for when they have been drained: no program of an earlier
// build was attached any more when this set was frozen.
func (s *set) discardOutgoing() error {
	for len(s.outgoing) > 0 {
		if err := s.outgoing[0].discard(); err != nil {
			return fmt.Errorf("discard an earlier build's map: %w", err)
		}
		s.outgoing = s.outgoing[1:]
	}
	return nil
}

// release lets go of what it has of the maps. The outgoing ones stay pinned.
func (s *set) release() error {
	errs := []error{s.front.release()}
	for _, o := range s.outgoing {
		errs = append(errs, o.close())
	}
	return errors.Join(errs...)
}
