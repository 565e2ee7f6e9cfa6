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
// filters for all protocols, else the lowest that the kernel gives us.
func (a *attacher) attachNetlink(ifindex int, direction flows.Direction) (hook, error) {
	created, err := ensureClsact(ifindex)
	if err != nil {
		return nil, err
	}
	h := netlinkHook{clsact: created}
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
	h.filter = nil
	err = fmt.Errorf("attach %s program with a netlink filter: %w", direction, err)
	return nil, errors.Join(err, h.detachClsact(ifindex))
}

func (a *attacher) filter(ifindex int, direction flows.Direction, priority uint16) *netlink.BpfFilter {
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if direction == flows.Receive {
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

// ensureClsact creates the qdisc and reports whether it was not there before.
func ensureClsact(ifindex int) (created bool, err error) {
	err = netlink.QdiscAdd(clsact(ifindex))
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("create clsact qdisc: %w", err)
	}
	return true, nil
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
	device := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(device, parent)
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

// isGone reports whether what was to be removed, or its interface, is not there.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}
