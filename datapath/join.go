// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// The pause after a failed attachment, doubled each time.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// tryJoin attaches to a link unless that has failed a moment ago.
func (w *linkWatcher) tryJoin(point uint32, name string) {
	r := w.retries[point]
	if r != nil && time.Now().Before(r.at) {
		return
	}
	err := w.join(point)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		delete(w.retries, point)
		return
	}
	if r == nil {
		r = &retry{pause: firstRetry / 2}
		w.retries[point] = r
	}
	r.pause = min(2*r.pause, lastRetry)
	r.at, r.name, r.problem = time.Now().Add(r.pause), name, err
	w.log.Error("attach", "interface", name, "error", err, "again-in", r.pause)
}

// join attaches to a link, as it is now: an event may be old. The attachment is
// known before its programs run, so that no epoch has a packet of a stranger.
func (w *linkWatcher) join(point uint32) error {
	if err := w.freePoint(w.attachments, point); err != nil {
		return err
	}
	a := w.newAttachment(point, true)
	failed := false
	err := w.options.within(func() error {
		l, err := netlink.LinkByIndex(int(point))
		if err != nil || !w.selector.wants(l) {
			return unlessVanished(err)
		}
		if err := w.permit(l); err != nil {
			return err
		}
		w.announce(l)
		a.identify(l)
		a.appeared = w.appeared(l)
		a.seeded = a.seeded && !w.existed(l)
		if err := w.freeDevice(a.device, point); err != nil {
			return err
		}
		w.attachments.enter(a, ledgerOf(l))
		if err := w.attach(a); err != nil {
			failed = true
			return unlessVanished(err)
		}
		w.log.Debug("attached", "interface", a.name, "mode", a.mode)
		w.settleSoon()
		return nil
	})
	if failed {
		err = errors.Join(err, w.giveUp(w.attachments, point))
	}
	return err
}

func (w *linkWatcher) attach(a *attachment) error {
	if err := w.drainer.createPoint(a.point); err != nil {
		return err
	}
	h, mode, err := w.attacher.attach(int(a.point), a.headerless)
	if err != nil {
		return err
	}
	w.attachments.with(a.point, func(a *attachment) { a.enter(h, mode) })
	return nil
}

// giveUp takes a failed attachment back. If the first of its programs has counted
// something before the second failed, that is drained like that of an interface
// that vanished.
func (m *Meter) giveUp(r *registry, point uint32) error {
	m.gate <- struct{}{} // what was drained of the point belongs to its holder
	defer func() { <-m.gate }()
	if err := m.grace.wait(); err != nil {
		return err
	}
	counted, err := m.drainer.counted(point)
	if err != nil {
		return err
	}
	if counted == (byDirection{}) {
		if err := m.drainer.deletePoint(point); err != nil {
			return err
		}
		r.withdraw(point)
		return nil
	}
	r.with(point, func(a *attachment) { a.leave(time.Now()) })
	return nil
}

// freePoint makes sure that nothing of an earlier attachment of this point is in any
// set, nor in the checkpoint.
func (m *Meter) freePoint(r *registry, point uint32) error {
	for range drainsAfterGone + 3 {
		if !r.taken(point) {
			return nil
		}
		if err := m.Drain(context.Background()); err != nil {
			return fmt.Errorf("drain what had point %d before: %w", point, err)
		}
	}
	return fmt.Errorf("point %d still has packets to be drained of what had it before", point)
}

// freeDevice makes sure that nothing is to be drained of a device that has come
// back with another ifindex, so that it is known what was published of it.
func (w *linkWatcher) freeDevice(device string, point uint32) error {
	earlier := w.attachments.points(func(a *attachment) bool {
		return a.device == device && a.point != point && !a.living()
	})
	for _, point := range earlier {
		if err := w.freePoint(w.attachments, point); err != nil {
			return err
		}
	}
	return nil
}

// leave ends an attachment; its last packets are still to be drained.
func (w *linkWatcher) leave(point uint32) {
	var h hooks
	var name string
	w.attachments.with(point, func(a *attachment) {
		if a != nil && a.living() {
			h, name, a.hooks = a.hooks, a.name, hooks{}
		}
	})
	if name == "" {
		return
	}
	if err := w.options.within(h.detach); err != nil {
		w.log.Error("detach, to be tried again", "interface", name, "error", err)
		w.undetached = append(w.undetached, h)
	}
	w.attachments.with(point, func(a *attachment) { a.leave(time.Now()) })
	w.log.Debug("left", "interface", name)
}

// detachAgain tries what failed before.
func (w *linkWatcher) detachAgain() {
	var still []hooks
	for _, h := range w.undetached {
		if err := w.options.within(h.detach); err != nil {
			w.log.Warn("detach", "error", err)
			still = append(still, h)
		}
	}
	w.undetached = still
}

// unlessVanished drops the error that says that the interface is gone.
func unlessVanished(err error) error {
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
