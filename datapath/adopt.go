// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openPins returns the pinned maps by the names that the collection has for them, nil if
// there are none. Of its own flows there need be none of our layout and size, and none of
// [laterMaps]. The error is [ebpf.ErrMapIncompatible] when maps that never change are not
// what they should be, or not all there.
func openPins(path string, spec *ebpf.CollectionSpec, names, own map[string]string) (map[string]*ebpf.Map, error) {
	pinned := make(map[string]*ebpf.Map)
	missing := 0
	for pin, name := range names {
		m, err := ebpf.LoadPinnedMap(filepath.Join(path, pin), nil)
		if errors.Is(err, fs.ErrNotExist) {
			if own[pin] == "" && !slices.Contains(laterMaps, name) {
				missing++
			}
			continue
		}
		if err == nil {
			pinned[name] = m
			// Of a data section the loader decides only later.
			spec.Maps[name].Flags |= m.Flags() & unix.BPF_F_MMAPABLE
			err = spec.Maps[name].Compatible(m)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("adopt map %s: %w", pin, err), closeAll(pinned))
		}
	}
	switch {
	case len(pinned) == 0:
		return nil, nil
	case missing > 0:
		err := fmt.Errorf("adopt maps: %d of them are not pinned: %w", missing, ebpf.ErrMapIncompatible)
		return nil, errors.Join(err, closeAll(pinned))
	}
	return pinned, nil
}

func closeAll(maps map[string]*ebpf.Map) error {
	var errs []error
	for _, m := range maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Resumed reports whether the meter goes on from the state that it was given;
// if not, why.
func (m *Meter) Resumed() (bool, error) { return m.resumed, m.rejected }

// Unsaved reports whether epochs were published after the state that the meter goes on from.
func (m *Meter) Unsaved() bool { return m.unsaved }

// adopt goes on with maps that an earlier agent has left, from its state if that
// fits them.
func (m *Meter) adopt() error {
	kernel, err := m.drainer.state.get()
	if err != nil {
		return err
	}
	m.setID = kernel.SetId
	for _, step := range []func() error{m.pinMissing, m.openOutgoing, m.drainer.align} {
		if err := step(); err != nil {
			return err
		}
	}
	saved := m.options.Saved()
	if saved != nil {
		m.rejected = saved.fits(kernel)
	}
	m.resumed = saved != nil && m.rejected == nil
	// The last agent may not have come to it.
	if err := m.drainer.rest(int((kernel.Epoch + 1) & 1)); err != nil {
		return err
	}
	if m.resumed {
		if err := m.resume(saved, kernel); err != nil {
			return err
		}
	} else {
		m.drainer.adrift = [sets]bool{true, true}
	}
	m.drainEarly() // the sets may have filled up meanwhile
	m.log.Info("went on with the maps of an earlier agent", "epoch", kernel.Epoch, "from-checkpoint", m.resumed)
	return m.options.within(m.adoptAttachments)
}

// resume goes on from a state that fits.
func (m *Meter) resume(saved *SavedState, kernel bpf.MeterEpochState) error {
	m.drainer.restore(saved)
	m.links.recall(saved.Existing)
	m.attachments.recall(saved.Past)
	for _, s := range saved.Attachments {
		m.registryOf(s.Point).put(s.recall())
	}
	// The one after the saved may have been read, and is then read again.
	if lost := kernel.Epoch - saved.Epoch; lost > 2 || saved.Behind && lost > 1 {
		m.unsaved = true
		for n := range m.drainer.unsaved {
			m.drainer.unsaved[n] = true
		}
		m.log.Warn("epochs were published and not saved: series by peer begin anew, sums by pod go on", "epochs", max(lost-2, 1))
	}
	return m.drainer.takeUp(kernel, saved.Epoch)
}

// restore takes over what a state says of the sets.
func (d *drainer) restore(saved *SavedState) {
	d.began = saved.Began
	for n, totals := range saved.Drained {
		d.drained[n] = make(map[bpf.MeterTotalKey]bpf.MeterTotalCounters)
		for _, total := range totals {
			key, counters := total.split()
			d.drained[n][key] = counters
		}
	}
}

// takeUp goes on where a drain that published epoch last has ended or stopped.
func (d *drainer) takeUp(kernel bpf.MeterEpochState, last uint64) error {
	if last != kernel.Epoch-1 {
		return nil
	}
	// The frozen set has been published: it is only to be cleared.
	d.published = true
	_, _, err := d.sets[(kernel.Epoch+1)&1].readFlows(frozen{epoch: kernel.Epoch - 1}, nil)
	return err
}

// adoptAttachments finds the programs of every point that the maps know. They
// get this build's programs, without a packet between.
func (m *Meter) adoptAttachments() error {
	counted, err := m.drainer.countedAll()
	if err != nil {
		return err
	}
	links, err := listLinks()
	if err != nil {
		return err
	}
	present, cgroups := byIndex(links), m.cgroupsOf(counted)
	for point := range counted {
		if isHostPoint(point) {
			m.adoptHost(point, cgroups[point])
		} else {
			m.adoptPoint(point, present[point])
		}
	}
	for _, r := range m.registries() {
		for _, point := range r.points(func(*attachment) bool { return true }) {
			if _, known := counted[point]; known {
				continue
			}
			// Deleted, and that was not saved any more.
			last := m.drainer.drainedOf(point)
			if err := m.drainer.deletePoint(point); err != nil {
				return err
			}
			r.forget(point, last)
		}
	}
	return m.attacher.removeStrangers(counted)
}

// adoptPoint restores the attachment of a point, or lets go of it if its programs
// are not what runs on that interface. l is nil if there is no such link.
func (m *Meter) adoptPoint(point uint32, l netlink.Link) {
	var a *attachment
	m.attachments.with(point, func(known *attachment) { a = known })
	if a == nil {
		// Attached since the last checkpoint, or that is unknown.
		a = m.newAttachment(point, m.resumed)
		if l == nil {
			m.attachments.put(a)
		} else {
			a.identify(l)
			a.seeded = a.seeded && !m.links.existed(l)
			m.attachments.enter(a, ledgerOf(l))
		}
	}
	h, mode, err := m.attacher.adopt(int(point), l != nil && headerless(l), a.ledger.unmetered)
	if err != nil {
		m.log.Warn("adopt attachment", "interface", a.name, "ifindex", point, "error", err)
	}
	m.attachments.with(point, func(a *attachment) {
		switch {
		case h != hooks{} && l != nil && a.living(): // programs do not change their device
			a.identify(l)
			a.enter(h, mode)
			h = hooks{}
			return
		case a.living():
			a.leave(time.Now())
		}
		a.vanished = a.vanished || l == nil || a.device != deviceOf(l)
	})
	if err := h.detach(); err != nil { // of what is not adopted
		m.log.Warn("detach", "interface", a.name, "error", err)
	}
	m.settleSoon()
}

// known returns the links whose past is nobody's.
func (w *linkWatcher) known() map[uint32]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.existing)
}

// recall restores the links whose past is nobody's: of those that are there now,
// those that were already.
func (w *linkWatcher) recall(existing map[uint32]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.existing, func(point uint32, device string) bool { return existing[point] != device })
}

// adopt returns the hooks of an earlier agent on an interface, with this build's
// programs, and none if they are not all there. unmetered directions have none.
func (a *attacher) adopt(ifindex int, headerless bool, unmetered [flows.Directions]bool) (hooks, AttachMode, error) {
	if err := a.replaceMode(ifindex); err != nil {
		return hooks{}, "", err
	}
	programs := a.programsFor(headerless)
	for _, find := range []struct {
		mode AttachMode
		hook hookMaker
	}{{AttachTCX, a.findTCX}, {AttachNetlink, a.findNetlink}} {
		var h hooks
		missing := false
		for direction := range flows.Direction(flows.Directions) {
			if missing && a.xdp != nil {
				break // the XDP link goes with the mode that has the other half
			}
			found, err := a.by(direction, find.hook, a.findXDP)(ifindex, direction, programs[direction])
			if err != nil {
				return hooks{}, find.mode, errors.Join(err, h.detach())
			}
			h[direction] = found
			missing = missing || found == nil && !unmetered[direction]
		}
		if !missing {
			return h, find.mode, nil
		}
		if err := h.detach(); err != nil {
			return hooks{}, find.mode, err
		}
	}
	return hooks{}, "", a.dropXDP(ifindex)
}
