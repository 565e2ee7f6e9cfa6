// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// clsactPrefix begins the name of every mark: clsact_<ifindex>.
const clsactPrefix = "clsact_"

// clsactMark is a pin that says, longer than an agent lives, that a meter of this
// pin path created the clsact qdisc of an interface.
//
// By itself it proves nothing: the device may be gone and its ifindex another's.
// It is believed only while a filter of ours is on the interface, since filters go
// with their qdisc, and it is removed before a filter of ours enters a qdisc of
// somebody else.
type clsactMark string

func markOf(pinPath string, ifindex int) clsactMark {
	return clsactMark(filepath.Join(pinPath, clsactPrefix+strconv.Itoa(ifindex)))
}

// set makes the mark. What is pinned does not matter; a map of its own keeps no
// program and no flows in memory.
func (c clsactMark) set() error {
	if c.isSet() {
		return nil
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "podmeter_clsact", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1,
	})
	if err != nil {
		return fmt.Errorf("mark clsact qdisc as ours: %w", err)
	}
	if err := errors.Join(m.Pin(string(c)), m.Close()); err != nil {
		return fmt.Errorf("mark clsact qdisc as ours: %w", err)
	}
	return nil
}

func (c clsactMark) isSet() bool { return exists(string(c)) }

func (c clsactMark) remove() error {
	if err := remove(string(c)); err != nil {
		return fmt.Errorf("remove mark of clsact qdisc: %w", err)
	}
	return nil
}

func clsact(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// qdisc says what is at the place where clsact belongs.
type qdisc int

const (
	qdiscNew     qdisc = iota // a clsact that we have just created
	qdiscClsact               // a clsact that was there
	qdiscIngress              // somebody's ingress, which has no egress hook
)

// claimClsact makes sure that there is a qdisc to attach to, and that the mark says
// whose it is. An agent that is killed between the two leaves a qdisc without mark,
// which then stays for good: better than to delete a stranger's.
func (a *attacher) claimClsact(ifindex int) (qdisc, error) {
	found, err := ensureClsact(ifindex)
	if err != nil {
		return found, err
	}
	mark := markOf(a.path, ifindex)
	if found == qdiscNew {
		if err := mark.set(); err != nil {
			return found, errors.Join(err, deleteClsact(ifindex))
		}
		return found, nil
	}
	if len(ourFilters(device(ifindex), a.handle)) > 0 { // the other direction's
		return found, nil
	}
	return found, mark.remove()
}

// ensureClsact creates the qdisc unless there is one.
func ensureClsact(ifindex int) (qdisc, error) {
	err := netlink.QdiscAdd(clsact(ifindex))
	if err == nil {
		return qdiscNew, nil
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

func deleteClsact(ifindex int) error {
	if err := netlink.QdiscDel(clsact(ifindex)); err != nil && !isGone(err) {
		return fmt.Errorf("delete clsact qdisc: %w", err)
	}
	return nil
}

// clsactFilters returns how many filters both hooks have, whoever made them.
func clsactFilters(ifindex int) (n int, err error) {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(device(ifindex), parent)
		if isGone(err) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("list filters: %w", err)
		}
		n += len(filters)
	}
	return n, nil
}

// ingressParent returns the parent that the filters of an ingress qdisc have. The
// qdisc takes any for its own, and shows for all filters what the last one had.
func ingressParent(ifindex int) (uint32, error) {
	filters, err := netlink.FilterList(device(ifindex), netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return 0, fmt.Errorf("list filters: %w", err)
	}
	if len(filters) > 0 {
		return filters[0].Attrs().Parent, nil
	}
	return netlink.HANDLE_MIN_INGRESS, nil
}
