// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// relistPause keeps bursts of events from listing all links for each.
	relistPause = 50 * time.Millisecond
	// relistInterval is how often links are listed without any event: what
	// could not be attached is tried again.
	relistInterval = 30 * time.Second
)

// errOverrun says that link events were lost.
var errOverrun = errors.New("link subscription ended")

// linkWatcher keeps the attachments in step with the links of the host. Its
// methods are called by the goroutine in run, and by Close after it.
type linkWatcher struct {
	*Meter
	// existing are the links that were there at the first listing: counting
	// begins at their attachment. nil before it.
	existing map[uint32]bool
	relist   *time.Timer
}

func newLinkWatcher(m *Meter) *linkWatcher { return &linkWatcher{Meter: m} }

// run follows the links until ctx is done. When the subscription overruns, it
// subscribes and lists again.
func (w *linkWatcher) run(ctx context.Context) error {
	for {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, errOverrun) {
			return err
		}
		w.log.Warn("lost link events, listing all links again")
	}
}

// follow subscribes, lists what is there and follows the events.
func (w *linkWatcher) follow(ctx context.Context) error {
	updates, stop, err := w.subscribe()
	if err != nil {
		return err
	}
	defer stop()
	w.relist = time.NewTimer(relistInterval)
	defer w.relist.Stop()
	if err := w.list(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.relist.C:
			w.relist.Reset(relistInterval)
			if err := w.list(); err != nil {
				return err
			}
		case update, ok := <-updates:
			if !ok {
				return errOverrun
			}
			w.event(update)
		}
	}
}

// subscribe returns the link events, and a function that ends them.
func (w *linkWatcher) subscribe() (<-chan netlink.LinkUpdate, func(), error) {
	updates := make(chan netlink.LinkUpdate, 64)
	done := make(chan struct{})
	err := w.options.within(func() error {
		return netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
			ReceiveBufferSize: w.options.receiveBuffer, ReceiveBufferForceSize: true,
			ErrorCallback: func(err error) { w.log.Debug("link subscription", "error", err) },
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("subscribe to link events: %w", err)
	}
	return updates, func() {
		close(done)
		for range updates { // its sender must not be left waiting
		}
	}, nil
}

// list brings the attachments in step with the links that are there.
func (w *linkWatcher) list() error {
	var links []netlink.Link
	err := w.options.within(func() (err error) {
		for range 10 {
			links, err = netlink.LinkList()
			if !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	present := make(map[uint32]bool, len(links))
	for _, l := range links {
		present[uint32(l.Attrs().Index)] = true
	}
	first := w.existing == nil
	if first {
		w.existing = present
	}
	for _, point := range w.attachments.points((*attachment).living) {
		if !present[point] {
			w.vanished(point)
		}
	}
	for _, l := range links {
		w.consider(l)
	}
	if first {
		w.greet()
	}
	return nil
}

// greet says what the first listing gave.
func (w *linkWatcher) greet() {
	metered := len(w.attachments.points((*attachment).living))
	if metered == 0 {
		w.log.Warn("no interface to meter yet, watching for some to come", "interfaces", w.options.Interfaces)
		return
	}
	w.log.Info("metering", "interfaces", metered)
}

func (w *linkWatcher) event(update netlink.LinkUpdate) {
	if update.IfInfomsg.Family != unix.AF_UNSPEC {
		return // of a bridge about its port: the link itself has not changed
	}
	if update.Header.Type == unix.RTM_DELLINK {
		w.vanished(uint32(update.Link.Attrs().Index))
	} else {
		w.consider(update.Link)
	}
	// The other end of a veth that has moved tells nothing of itself.
	w.relist.Reset(relistPause)
}

// vanished lets go of a link that has been deleted or moved away. In the latter
// case our programs are still on it, and detaching reaches them.
func (w *linkWatcher) vanished(point uint32) {
	delete(w.existing, point)
	w.leave(point)
}

// consider decides about one link that is there.
func (w *linkWatcher) consider(l netlink.Link) {
	point, wanted := uint32(l.Attrs().Index), w.selector.wants(l)
	living := false
	w.attachments.with(point, func(a *attachment) {
		if living = a != nil && a.living(); living {
			a.name, a.peerNamespace = l.Attrs().Name, l.Attrs().NetNsID
		}
	})
	switch {
	case living && !wanted:
		w.leave(point)
	case wanted && !living:
		if err := w.join(point); err != nil {
			w.log.Error("attach", "interface", l.Attrs().Name, "error", err)
		}
	}
}

// leave ends an attachment; its last packets are still to be drained.
func (w *linkWatcher) leave(point uint32) {
	var h hooks
	var name string
	w.attachments.with(point, func(a *attachment) {
		if a == nil || !a.living() {
			return
		}
		h, name, a.hooks = a.hooks, a.name, hooks{}
	})
	if name == "" {
		return
	}
	if err := w.options.within(h.detach); err != nil {
		w.log.Error("detach", "interface", name, "error", err)
	}
	w.attachments.with(point, func(a *attachment) { a.leave(time.Now()) })
	w.log.Debug("left", "interface", name)
}

// join attaches to a link, as it is now: an event may be old.
func (w *linkWatcher) join(point uint32) error {
	if err := w.freePoint(point); err != nil {
		return err
	}
	a := &attachment{point: point, seeded: !w.existing[point], attached: time.Now()}
	err := w.options.within(func() error {
		l, err := netlink.LinkByIndex(int(point))
		if err != nil || !w.selector.wants(l) {
			return err
		}
		a.name, a.peerNamespace = l.Attrs().Name, l.Attrs().NetNsID
		if err := w.drainer.createPoint(point); err != nil {
			return err
		}
		a.hooks, a.mode, err = w.attacher.attach(int(point))
		if err != nil {
			// One of the programs may have counted something by then.
			a.leave(time.Now())
		}
		w.attachments.put(a)
		return err
	})
	if vanishedMeanwhile(err) {
		return nil
	}
	if err == nil && a.hooks[flows.Transmit] != nil {
		w.log.Debug("attached", "interface", a.name, "mode", a.mode)
		w.settleSoon()
	}
	return err
}

// freePoint makes sure that nothing of an earlier interface with this ifindex is
// in any set.
func (w *linkWatcher) freePoint(point uint32) error {
	for range drainsAfterGone + 1 {
		taken := false
		w.attachments.with(point, func(a *attachment) { taken = a != nil })
		if !taken {
			return nil
		}
		if err := w.Drain(context.Background()); err != nil {
			return fmt.Errorf("drain an earlier interface with ifindex %d: %w", point, err)
		}
	}
	return nil
}

func (w *linkWatcher) detachAll() error {
	for _, point := range w.attachments.points((*attachment).living) {
		w.leave(point)
	}
	return nil
}

func vanishedMeanwhile(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ENODEV)
}
