// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// remains are what an agent that no longer runs may have left in the kernel
// under its pin path.
type remains struct {
	path   string
	within func(func() error) error
}

// Uninstall removes what agents have left in the kernel under a pin path:
// netlink filters, the clsact qdiscs that they created and nobody else uses, and
// pins. It returns what was removed. It fails with
// [ErrInUse] while an agent runs there.
func Uninstall(path string) (removed []string, err error) {
	if !exists(path) {
		return nil, nil
	}
	lock, err := openLock(path)
	if err != nil {
		return nil, err
	}
	if err := lock.try(); err != nil {
		return nil, errors.Join(err, lock.directory.Close())
	}
	r := remains{path: path, within: func(f func() error) error { return f() }}
	removed, err = r.remove()
	return removed, errors.Join(err, lock.release())
}

// remove removes all of it; what is not there is not missed.
func (r remains) remove() (removed []string, err error) {
	err = r.within(func() error {
		filters, err := r.removeFilters()
		removed = append(removed, filters...)
		return err
	})
	pins, pinErr := r.removePins()
	return append(removed, pins...), errors.Join(err, pinErr)
}

// removePins removes the pins of our maps and links, and our marks. A link ends with its pin.
func (r remains) removePins() (removed []string, err error) {
	entries, err := os.ReadDir(r.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	known := pinNames(laterMaps)
	var errs []error
	for _, entry := range entries {
		if _, known := known[entry.Name()]; !known && !pinPrefixed(entry.Name()) {
			continue
		}
		path := filepath.Join(r.path, entry.Name())
		if err := remove(path); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, path)
	}
	return removed, errors.Join(errs...)
}

// pinPrefixed reports whether a pin bears one of our names that hold a number.
func pinPrefixed(name string) bool {
	return slices.ContainsFunc([]string{flowPinPrefix, linkPrefix, clsactPrefix, socketPrefix}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

// removeFilters removes the netlink filters that bear our name and this pin
// path's handle, and the clsact qdiscs that are marked as ours and hold no others.
func (r remains) removeFilters() (removed []string, err error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		for _, filter := range ourFilters(l, filterHandle(r.path)) {
			h := netlinkHook{filter: filter, mark: markOf(r.path, l.Attrs().Index)}
			qdisc, err := h.delete()
			if err != nil {
				errs = append(errs, err)
				continue
			}
			removed = append(removed, fmt.Sprintf("filter %s of %s", filter.Name, l.Attrs().Name))
			if qdisc {
				removed = append(removed, "clsact qdisc of "+l.Attrs().Name)
			}
		}
	}
	return removed, errors.Join(errs...)
}

// ourFilters returns the filters of a link that have our name and handle.
func ourFilters(l netlink.Link, handle uint32) (ours []*netlink.BpfFilter) {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(l, parent)
		if err != nil {
			continue // no such qdisc, or the link has gone
		}
		for _, filter := range filters {
			bpf, ok := filter.(*netlink.BpfFilter)
			if ok && strings.HasPrefix(bpf.Name, filterPrefix) && bpf.Handle == handle {
				ours = append(ours, bpf)
			}
		}
	}
	return ours
}

// removeStrangers removes the pins of links whose interface the maps do not know,
// and the marks of qdiscs that cannot be believed any more.
func (a *attacher) removeStrangers(known map[uint32]byDirection) error {
	entries, err := os.ReadDir(a.path)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		stays := true
		if rest, link := strings.CutPrefix(entry.Name(), linkPrefix); link {
			number, _, _ := strings.Cut(rest, "_")
			point, err := strconv.ParseUint(number, 10, 32)
			_, stays = known[uint32(point)]
			stays = stays && err == nil
		} else if number, mark := strings.CutPrefix(entry.Name(), clsactPrefix); mark {
			ifindex, err := strconv.ParseUint(number, 10, 31)
			stays = err == nil && len(ourFilters(device(int(ifindex)), a.handle)) > 0
		}
		if !stays {
			errs = append(errs, remove(filepath.Join(a.path, entry.Name())))
		}
	}
	return errors.Join(errs...)
}
