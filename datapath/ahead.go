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

// errDetached is returned when our program is not where it was attached.
var errDetached = errors.New("our program is not attached any more")

// ahead returns in words who sees packets before our program on an interface.
// Programs are told by their ids: what an id stands for only CAP_SYS_ADMIN may
// look up. It returns errDetached where ours is not there at all.
func (a *attacher) ahead(ifindex int, direction flows.Direction, mode AttachMode) ([]string, error) {
	if mode == AttachTCX {
		ours, err := a.programIDs()
		if err != nil {
			return nil, err
		}
		before, found, err := tcxBefore(ifindex, direction, ours[direction]...)
		if err == nil && !found {
			err = errDetached
		}
		return before, err
	}
	before, _, err := tcxBefore(ifindex, direction)
	if err != nil {
		return nil, err
	}
	filters, err := a.filtersAhead(ifindex, direction)
	return append(before, filters...), err
}

// tcxBefore returns the TCX programs of an interface in their order, until one
// of the given ids if that is found.
func tcxBefore(ifindex int, direction flows.Direction, ids ...ebpf.ProgramID) (before []string, found bool, err error) {
	attached, err := queryTCX(ifindex, direction)
	for _, program := range attached {
		if slices.Contains(ids, program.ID) {
			return before, true, nil
		}
		before = append(before, tcxText(program))
	}
	return before, false, err
}

// queryTCX returns the TCX programs at a hook in their order, none if there is
// no such interface or the kernel lacks TCX.
func queryTCX(ifindex int, side flows.Direction) ([]link.AttachedProgram, error) {
	attached, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: tcxAttachType(side)})
	if isGone(err) || errors.Is(err, ebpf.ErrNotSupported) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for TCX programs: %w", err)
	}
	return attached.Programs, nil
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
		return nil, errDetached
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
	return nil, errDetached
}

func filterText(filter netlink.Filter) string {
	text := fmt.Sprintf("%s filter of priority %d", filter.Type(), filter.Attrs().Priority)
	if bpf, ok := filter.(*netlink.BpfFilter); ok && bpf.Name != "" {
		return text + ", " + bpf.Name
	}
	return text
}

// lookAhead adds to a reading who is before our programs, where that matters. It
// returns errDetached if one of them is not there.
func (m *Meter) lookAhead(point uint32, r *reading) error {
	var mode AttachMode
	var suspects [flows.Directions]bool
	m.attachments.with(point, func(a *attachment) {
		if a != nil && a.metered() {
			mode, suspects = a.mode, a.ledger.suspects(r)
		}
	})
	for d := range flows.Direction(flows.Directions) {
		if !suspects[d] {
			continue
		}
		err := m.options.within(func() (err error) {
			r.ahead[d], err = m.attacher.ahead(int(point), d, mode)
			return err
		})
		if err != nil {
			return err
		}
	}
	r.looked = true
	return nil
}
