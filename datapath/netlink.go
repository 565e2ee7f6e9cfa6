// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/cilium/ebpf"
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
	mark   clsactMark
}

// attachNetlink attaches a direct-action filter to the clsact qdisc, which is
// created where there is none. It takes priority 1 if that is free or holds BPF
// filters for all protocols, else the lowest that the kernel gives us. Where
// somebody's ingress qdisc takes the place of clsact there is no egress hook, and
// the hook returned for it is nil.
func (a *attacher) attachNetlink(ifindex int, direction flows.Direction, program *ebpf.Program) (hook, error) {
	qdisc, err := a.claimClsact(ifindex)
	if err != nil {
		return nil, err
	}
	if qdisc == qdiscIngress && a.side(direction) == flows.Receive {
		return nil, nil
	}
	if qdisc != qdiscNew { // one that could not be deleted would count twice
		if h, err := a.findNetlink(ifindex, direction, program); h != nil || err != nil {
			return h, err
		}
	}
	h, err := a.addFilter(ifindex, direction, program, qdisc)
	if err != nil && qdisc == qdiscNew {
		err = errors.Join(err, deleteClsact(ifindex), h.mark.remove())
	}
	if err != nil {
		return nil, fmt.Errorf("attach %s program with a netlink filter: %w", direction, err)
	}
	return h, nil
}

// addFilter adds our filter at the lowest priority that takes it.
func (a *attacher) addFilter(ifindex int, direction flows.Direction, program *ebpf.Program, to qdisc) (h netlinkHook, err error) {
	h.mark = markOf(a.path, ifindex)
	h.filter = a.filter(ifindex, direction, 0)
	h.filter.Fd = program.FD()
	if to == qdiscIngress {
		if h.filter.Parent, err = ingressParent(ifindex); err != nil {
			return h, err
		}
	}
	for h.filter.Priority = 1; h.filter.Priority <= lastPriority; h.filter.Priority++ {
		err = netlink.FilterAdd(h.filter)
		// Another protocol or kind of filter holds this priority, or a filter
		// with our handle does that is not ours.
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return h, err
}

// filter returns a filter without its program.
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
		Name:         filterPrefix + direction.String(),
		DirectAction: true,
	}
}

// device is a link of which only the index matters.
func device(ifindex int) netlink.Link {
	return &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
}

// detach ends the attachment.
func (h netlinkHook) detach() error {
	_, err := h.delete()
	return err
}

// delete deletes our filter, and the qdisc with it if we created that and nobody
// else uses it: all at once, so that no agent that is killed leaves it behind. It
// reports whether the qdisc went. By now the ifindex may be another device's: what
// does not hold our filter is left alone.
func (h netlinkHook) delete() (qdisc bool, err error) {
	ifindex := h.filter.LinkIndex
	there, err := h.alive(ifindex)
	if err != nil {
		return false, err
	}
	if there {
		if qdisc, err = h.mayDeleteClsact(); err != nil {
			return false, err
		}
		if qdisc {
			err = deleteClsact(ifindex)
		} else {
			err = h.deleteFilter()
		}
		if err != nil {
			return false, err
		}
	}
	if len(ourFilters(device(ifindex), h.filter.Handle)) > 0 { // the other direction's
		return false, nil
	}
	return qdisc, h.mark.remove()
}

// mayDeleteClsact reports whether the qdisc is ours and our filter its only one.
func (h netlinkHook) mayDeleteClsact() (bool, error) {
	if !h.mark.isSet() {
		return false, nil
	}
	filters, err := clsactFilters(h.filter.LinkIndex)
	return filters == 1, err
}

func (h netlinkHook) deleteFilter() error {
	if err := netlink.FilterDel(h.filter); err != nil && !isGone(err) {
		return fmt.Errorf("delete filter %s: %w", h.filter.Name, err)
	}
	return nil
}

// findNetlink returns our filter of an interface with this program of this build, nil
// if there is none.
func (a *attacher) findNetlink(ifindex int, direction flows.Direction, program *ebpf.Program) (hook, error) {
	for _, filter := range ourFilters(device(ifindex), a.handle) {
		if filter.Name != filterPrefix+direction.String() {
			continue
		}
		h := netlinkHook{filter: a.filter(ifindex, direction, filter.Priority), mark: markOf(a.path, ifindex)}
		h.filter.Fd, h.filter.Parent = program.FD(), filter.Parent
		if err := netlink.FilterReplace(h.filter); err != nil {
			return nil, fmt.Errorf("adopt %s filter: %w", direction, err)
		}
		return h, nil
	}
	return nil, nil
}

// release has nothing to let go of: a filter stays by itself.
func (netlinkHook) release() error { return nil }

// mayReturn cannot know: qdiscs and filters do not move with their device.
func (netlinkHook) mayReturn() bool { return true }

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
