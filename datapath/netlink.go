// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// filterPrefix begins the name of every filter of ours: the name alone
	// decides whose a filter is.
	filterPrefix = "podmeter_"
	// lastPriority bounds the search for a priority that takes us.
	lastPriority = 64
)

// filterHandle derives a filter's handle from the pin path, so that two meters
// with paths of their own do not replace each other's filters.
func filterHandle(pinPath string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(pinPath))
	return max(h.Sum32()&0x7fffffff, 1)
}

type netlinkHook struct {
	filter *netlink.BpfFilter
	// clsact is whether we created the qdisc that holds the filter.
	clsact bool
}

// attachNetlink attaches a direct-action filter to the clsact qdisc, which is
// created where there is none. It takes priority 1 if that is free or holds BPF
// filters for all protocols, else the lowest that the kernel gives us. Where
// somebody's ingress qdisc takes the place of clsact there is no egress hook, and
// the hook returned for it is nil.
func (a *attacher) attachNetlink(ifindex int, direction flows.Direction) (hook, error) {
	qdisc, err := ensureClsact(ifindex)
	if err != nil {
		return nil, err
	}
	if qdisc == qdiscIngress && a.side(direction) == flows.Receive {
		return nil, nil
	}
	h := netlinkHook{clsact: qdisc == qdiscOurs}
	for priority := uint16(1); priority <= lastPriority; priority++ {
		h.filter = a.filter(ifindex, direction, priority)
		err = netlink.FilterAdd(h.filter)
		if err == nil {
			return h, nil
		}
		// Another protocol or kind of filter holds this priority, or a filter
		// with our handle does that is not ours.
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	err = fmt.Errorf("attach %s program with a netlink filter: %w", direction, err)
	return nil, errors.Join(err, h.detachClsact(ifindex))
}

func (a *attacher) filter(ifindex int, direction flows.Direction, priority uint16) *netlink.BpfFilter {
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if a.side(direction) == flows.Receive {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: parent, Handle: a.handle,
			Protocol: unix.ETH_P_ALL, Priority: priority,
		},
		Fd:           a.programs[direction].FD(),
		Name:         filterPrefix + direction.String(),
		DirectAction: true,
	}
}

func clsact(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// qdisc says what is at the place where clsact belongs.
type qdisc int

const (
	qdiscOurs    qdisc = iota // a clsact that we created
	qdiscClsact               // somebody's clsact
	qdiscIngress              // somebody's ingress, which has no egress hook
)

// ensureClsact creates the qdisc unless there is one.
func ensureClsact(ifindex int) (qdisc, error) {
	err := netlink.QdiscAdd(clsact(ifindex))
	if err == nil {
		return qdiscOurs, nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("create clsact qdisc: %w", err)
	}
	// An ingress qdisc has the same handle, and would take a filter for egress
	// as one for ingress.
	all, err := netlink.QdiscList(device(ifindex))
	if err != nil {
		return 0, fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range all {
		if q.Type() == "ingress" {
			return qdiscIngress, nil
		}
	}
	return qdiscClsact, nil
}

// device is a link of which only the index matters.
func device(ifindex int) netlink.Link {
	return &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
}

// detach deletes our filter, and the qdisc if we created it and nobody uses it.
func (h netlinkHook) detach() error {
	err := netlink.FilterDel(h.filter)
	if err != nil && !isGone(err) {
		return fmt.Errorf("delete filter %s: %w", h.filter.Name, err)
	}
	return h.detachClsact(h.filter.LinkIndex)
}

func (h netlinkHook) detachClsact(ifindex int) error {
	if !h.clsact {
		return nil
	}
	used, err := clsactUsed(ifindex)
	if err != nil || used {
		return err
	}
	if err := netlink.QdiscDel(clsact(ifindex)); err != nil && !isGone(err) {
		return fmt.Errorf("delete clsact qdisc: %w", err)
	}
	return nil
}

// clsactUsed reports whether any filter is left on either hook.
func clsactUsed(ifindex int) (bool, error) {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(device(ifindex), parent)
		if isGone(err) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("list filters: %w", err)
		}
		if len(filters) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// findNetlink returns our filter of an interface with this build's program, nil
// if there is none.
func (a *attacher) findNetlink(ifindex int, direction flows.Direction) (hook, error) {
	for _, filter := range ourFilters(device(ifindex), a.handle) {
		if filter.Name != filterPrefix+direction.String() {
			continue
		}
		h := netlinkHook{filter: a.filter(ifindex, direction, filter.Priority)}
		if err := netlink.FilterReplace(h.filter); err != nil {
			return nil, fmt.Errorf("adopt %s filter: %w", direction, err)
		}
		return h, nil
	}
	return nil, nil
}

// release has nothing to let go of: a filter stays by itself.
func (netlinkHook) release() error { return nil }

// alive looks for the filter on the interface.
func (h netlinkHook) alive(ifindex int) (bool, error) {
	filters, err := netlink.FilterList(device(ifindex), h.filter.Parent)
	if isGone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("list filters: %w", err)
	}
	for _, filter := range filters {
		bpf, ok := filter.(*netlink.BpfFilter)
		if ok && bpf.Name == h.filter.Name && bpf.Handle == h.filter.Handle && bpf.Priority == h.filter.Priority {
			return true, nil
		}
	}
	return false, nil
}

// isGone reports whether what was to be removed, or its interface, is not there.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}
