// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/flows"
)

// set is one of the two groups of maps that programs write in turn. All methods
// but those of the embedded totals want it frozen: no program writes it.
type set struct {
	*totals
	// flows is the map that this build's programs write.
	flows    flowMap
	inserted *ebpf.Variable
	// outgoing are maps that only the programs of earlier builds wrote.
	outgoing []outgoing
	// health is nil where sockets are not looked at.
	health *healthTable
}

// readFlows appends the set's flows to records.
func (s *set) readFlows(clock clock, records []flows.Record) (_ []flows.Record, err error) {
	for _, m := range s.maps() {
		if records, err = m.read(clock, records); err != nil {
			return records, err
		}
	}
	return records, nil
}

func (s *set) maps() []flowMap {
	all := []flowMap{s.flows}
	for _, o := range s.outgoing {
		all = append(all, o.flowMap)
	}
	return all
}

// clear empties the set of the flows that were read and returns the bytes of
// those that are left then, which must not be. The outgoing maps have served
// their time.
func (s *set) clear() (missed uint64, err error) {
	for _, m := range s.maps() {
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

// release lets go of the outgoing maps, which stay pinned.
func (s *set) release() error {
	var errs []error
	for _, o := range s.outgoing {
		errs = append(errs, o.m.Close())
	}
	return errors.Join(errs...)
}
