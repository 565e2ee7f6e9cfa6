// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
)

// redirects is what is known of whether packets can go round interfaces without
// anybody counting them. It belongs to the holder of the gate.
type redirects struct {
	// counted is whether the kernel counts what bpf_redirect_peer gives to a pod's
	// end; probed is whether that is known.
	counted, probed bool
	// able are the links where somebody's program could redirect, as of the time
	// at which they were looked for.
	able map[uint32]bool
	at   time.Time
}

// countsRedirects reports whether the kernel counts redirected packets (Linux 6.7,
// and what it was brought back to). The change that made it do so gave struct
// net_device a member of this name, which is then among the names in the kernel's
// types. A kernel that does not tell those is taken not to.
func countsRedirects() bool {
	types, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	return err == nil && bytes.Contains(types, []byte("\x00pcpu_stat_type\x00"))
}

// doubt notes of which interfaces nobody can tell whether they are bypassed: those
// whose other end does not tell, when somebody could redirect from another link.
func (m *Meter) doubt(links []netlink.Link, now time.Time) error {
	r := &m.redirects
	if !r.probed {
		r.counted, r.probed = m.options.countsRedirects(), true
	}
	blind := m.attachments.points(func(a *attachment) bool { return a.metered() && a.blind })
	switch {
	case len(blind) == 0 && r.counted:
		r.able = nil
	case len(blind) > 0, m.hooksChanged.Swap(false), now.Sub(r.at) > relistInterval:
		able, err := m.ableToRedirect(links)
		if err != nil {
			return err
		}
		r.able, r.at = able, now
	}
	for _, l := range links {
		point := uint32(l.Attrs().Index)
		_, _, veth := farEnd(l)
		others := len(r.able)
		if r.able[point] {
			others--
		}
		m.attachments.with(point, func(a *attachment) {
			if a != nil {
				a.doubtful = veth && others > 0 && (a.blind || !r.counted)
			}
		})
	}
	return nil
}

// ableToRedirect returns the links whose incoming packets meet a BPF program that
// is not ours.
func (m *Meter) ableToRedirect(links []netlink.Link) (able map[uint32]bool, err error) {
	ours, err := m.attacher.programIDs()
	if err != nil {
		return nil, err
	}
	able = make(map[uint32]bool)
	err = m.options.within(func() error {
		for _, l := range links {
			foreign, err := m.foreignTCX(l.Attrs().Index, ours[flows.Transmit])
			if err != nil {
				return err
			}
			if foreign {
				able[uint32(l.Attrs().Index)] = true
			}
		}
		return foreignFilters(able)
	})
	return able, err
}

// programIDs returns the ids of our programs of TC.
func (a *attacher) programIDs() (ids [flows.Directions][]ebpf.ProgramID, err error) {
	for _, programs := range [][flows.Directions]*ebpf.Program{a.programs, a.headerless} {
		for d, program := range programs {
			info, err := program.Info()
			if err != nil {
				return ids, fmt.Errorf("look at our program: %w", err)
			}
			id, _ := info.ID()
			ids[d] = append(ids[d], id)
		}
	}
	return ids, nil
}

// foreignTCX reports whether an interface has a TCX program on ingress that is not
// ours.
func (m *Meter) foreignTCX(ifindex int, ours []ebpf.ProgramID) (bool, error) {
	attached, err := queryTCX(ifindex, flows.Transmit) // what comes in from the device
	for _, program := range attached {
		if !slices.Contains(ours, program.ID) && program.ID != m.uplinkProgram(ifindex) {
			return true, nil
		}
	}
	return false, err
}

// uplinkProgram returns the id of the program that the meter of the uplinks has on
// an interface's ingress, 0 if there is none.
func (m *Meter) uplinkProgram(ifindex int) ebpf.ProgramID {
	uplinks := attacher{path: UplinksPath(m.options.PinPath)}
	pinned, err := uplinks.openLink(ifindex, flows.Receive)
	if pinned.link == nil || err != nil {
		return 0
	}
	defer pinned.release()
	info, err := pinned.link.Info()
	if err != nil {
		return 0
	}
	return info.Program
}

// foreignFilters adds the links that have a BPF filter on ingress that is no
// podmeter's.
func foreignFilters(able map[uint32]bool) error {
	qdiscs, err := netlink.QdiscList(nil)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range qdiscs {
		if q.Type() != "clsact" && q.Type() != "ingress" {
			continue
		}
		index := q.Attrs().LinkIndex
		filters, err := netlink.FilterList(device(index), netlink.HANDLE_MIN_INGRESS)
		if err != nil && !isGone(err) {
			return fmt.Errorf("list filters: %w", err)
		}
		for _, filter := range filters {
			// No podmeter redirects, whichever this one is.
			if bpf, ok := filter.(*netlink.BpfFilter); ok && !strings.HasPrefix(bpf.Name, filterPrefix) {
				able[uint32(index)] = true
			}
		}
	}
	return nil
}
