// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
)

// ahead returns in words who sees packets before our program on an interface.
// Programs are told by their ids: what an id stands for only CAP_SYS_ADMIN may
// look up.
func (a *attacher) ahead(ifindex int, direction flows.Direction, mode AttachMode) ([]string, error) {
	ours := ebpf.ProgramID(0)
	if mode == AttachTCX {
		info, err := a.programs[direction].Info()
		if err != nil {
			return nil, fmt.Errorf("look at our program: %w", err)
		}
		ours, _ = info.ID()
	}
	before, err := tcxAhead(ifindex, direction, ours)
	if err != nil || mode == AttachTCX {
		return before, err
	}
	filters, err := a.filtersAhead(ifindex, direction)
	return append(before, filters...), err
}

// tcxAhead returns the TCX programs of an interface in their order, until ours.
func tcxAhead(ifindex int, direction flows.Direction, ours ebpf.ProgramID) (before []string, err error) {
	attached, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: tcxAttachType(direction)})
	if isGone(err) || errors.Is(err, ebpf.ErrNotSupported) { // or a kernel without TCX
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for TCX programs: %w", err)
	}
	for _, program := range attached.Programs {
		if program.ID == ours {
			return before, nil
		}
		before = append(before, tcxText(program))
	}
	if ours != 0 { // ours is not there at all, so nobody is before it
		return nil, nil
	}
	return before, nil
}

func tcxText(program link.AttachedProgram) string {
	text := fmt.Sprintf("TCX program %d", program.ID)
	if id, ok := program.LinkID(); ok {
		text += fmt.Sprintf(" (link %d)", id)
	}
	return text
}

// filtersAhead returns the filters that the kernel asks before ours: those of a
// lower priority, and of two BPF filters in one priority the newer.
func (a *attacher) filtersAhead(ifindex int, direction flows.Direction) (before []string, err error) {
	ours := a.filter(ifindex, direction, 0)
	filters, err := netlink.FilterList(device(ifindex), ours.Parent)
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	for _, filter := range filters {
		bpf, ok := filter.(*netlink.BpfFilter)
		if ok && bpf.Name == ours.Name && bpf.Handle == ours.Handle {
			return before, nil
		}
		if text := filterText(filter); !slices.Contains(before, text) { // u32 lists its tables too
			before = append(before, text)
		}
	}
	return nil, nil // ours is not there
}

func filterText(filter netlink.Filter) string {
	text := fmt.Sprintf("%s filter of priority %d", filter.Type(), filter.Attrs().Priority)
	if bpf, ok := filter.(*netlink.BpfFilter); ok && bpf.Name != "" {
		return text + ", " + bpf.Name
	}
	return text
}

// lookAhead adds to a reading who is before our programs, where that matters.
func (m *Meter) lookAhead(point uint32, r *reading) {
	var mode AttachMode
	var suspects [flows.Directions]bool
	m.attachments.with(point, func(a *attachment) {
		if a != nil && a.metered() {
			mode, suspects = a.mode, a.ledger.suspects(r)
		}
	})
	r.looked = true
	for d := range flows.Direction(flows.Directions) {
		if !suspects[d] {
			continue
		}
		err := m.options.within(func() (err error) {
			r.ahead[d], err = m.attacher.ahead(int(point), d, mode)
			return err
		})
		if err != nil {
			r.looked = false // nothing follows from this reading
			m.log.Debug("look who is before us", "ifindex", point, "direction", d, "error", err)
			return
		}
	}
}
