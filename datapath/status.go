// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"time"

	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
)

// DrainStatus tells of the last drain.
type DrainStatus struct {
	// Count is how many drains there were; Epoch is the one that was read last.
	Count, Epoch uint64
	Ended        time.Time
	Took         time.Duration
	// Problem is why the last attempt failed, empty if it did not.
	Problem string
}

// InterfaceStatus tells of one metered interface. Arrays are indexed by
// [flows.Direction].
type InterfaceStatus struct {
	Point flows.Point
	Name  string
	State State
	Mode  AttachMode
	Since time.Time
	// Counted is what the programs counted since the attachment, at the last
	// reading.
	Counted [flows.Directions]flows.Counters
	// Before is what passed before the attachment. Seeded is whether it is
	// published: not for what was there when the meter started.
	Before [flows.Directions]flows.Counters
	Seeded bool
	// Difference is the interface's packets minus ours since the attachment, and
	// minus those of Hidden.
	Difference [flows.Directions]int64
	// DifferenceBytes are its bytes, when the interface was quiet last.
	DifferenceBytes [flows.Directions]int64
	// Earlier is what of the interface's counters earlier attachments accounted for.
	Earlier [flows.Directions]flows.Counters
	// Ahead says in words who was before our programs at the last look, where
	// packets are missing.
	Ahead [flows.Directions][]string
	// Hidden is what he hid from our programs and is published all the same.
	Hidden [flows.Directions]flows.Counters
	// Bypassed is what the pod received round the host's end of its veth, which is
	// published too. BypassedBefore was received so before this attachment and is not
	// published by it.
	Bypassed, BypassedBefore flows.Counters
	// PodEnd is whether the pod's end can be read, so that Bypassed and BypassedBefore
	// make up all that it has received beyond the host's end.
	PodEnd bool
}

// Capacity returns how many flows each set holds.
func (m *Meter) Capacity() uint32 { return m.capacity }

// LastDrain returns what is known of the last drain.
func (m *Meter) LastDrain() DrainStatus { return *m.last.Load() }

// Interfaces returns the metered interfaces by name.
func (m *Meter) Interfaces() []InterfaceStatus { return m.attachments.status() }

func (r *registry) status() []InterfaceStatus {
	var all []InterfaceStatus
	r.each(func(a *attachment) {
		all = append(all, InterfaceStatus{
			Point: flows.Point(a.point), Name: a.name, State: a.state(), Mode: a.shownMode(), Since: a.attached,
			Counted: a.ledger.last.ours, Before: a.ledger.before, Seeded: a.seeded, Difference: a.ledger.difference,
			DifferenceBytes: a.ledger.differenceBytes, Earlier: a.ledger.base,
			Ahead: a.ledger.ahead, Hidden: a.ledger.hidden, Bypassed: a.bypass.seeded,
			BypassedBefore: a.bypass.base, PodEnd: a.bypass.known && !a.blind,
		})
	})
	return all
}

// Outcomes returns the ways in which parsing a packet can end, as the metric's
// label shows them.
func Outcomes() []string { return outcomeNames[:] }

// Outcomes returns how many packets parsing ended which way, by the names of
// the function [Outcomes].
func (m *Meter) Outcomes() (map[string]uint64, error) {
	m.gate <- struct{}{}
	defer func() { <-m.gate }()
	if m.released {
		return nil, ErrClosed
	}
	outcomes := make(map[string]uint64, bpf.MeterOutcomeOUTCOMES)
	slots := make([]uint64, m.cpus)
	for outcome := range bpf.MeterOutcomeOUTCOMES {
		if err := m.objects.Outcomes.Lookup(uint32(outcome), slots); err != nil {
			return nil, fmt.Errorf("read outcomes: %w", err)
		}
		var sum uint64
		for _, packets := range slots {
			sum += packets
		}
		outcomes[outcomeNames[outcome]] = sum
	}
	return outcomes, nil
}

// outcomeNames are the enumerators of bpf/flow.h as the label shows them.
var outcomeNames = [bpf.MeterOutcomeOUTCOMES]string{
	bpf.MeterOutcomeOUTCOME_FULL:                "full",
	bpf.MeterOutcomeOUTCOME_LATER_FRAGMENT:      "later_fragment",
	bpf.MeterOutcomeOUTCOME_NO_PORTS:            "no_ports",
	bpf.MeterOutcomeOUTCOME_NOT_IP:              "not_ip",
	bpf.MeterOutcomeOUTCOME_TRUNCATED_LINK:      "truncated_link",
	bpf.MeterOutcomeOUTCOME_TRUNCATED_VLAN:      "truncated_vlan",
	bpf.MeterOutcomeOUTCOME_TRUNCATED_NETWORK:   "truncated_network",
	bpf.MeterOutcomeOUTCOME_TRUNCATED_EXTENSION: "truncated_extension",
	bpf.MeterOutcomeOUTCOME_TRUNCATED_TRANSPORT: "truncated_transport",
	bpf.MeterOutcomeOUTCOME_MALFORMED:           "malformed",
	bpf.MeterOutcomeOUTCOME_VLAN_LIMIT:          "vlan_limit",
	bpf.MeterOutcomeOUTCOME_EXTENSION_LIMIT:     "extension_limit",
	bpf.MeterOutcomeOUTCOME_NO_POINT:            "no_point",
}
