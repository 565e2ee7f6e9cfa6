// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// relistSoon keeps bursts of events from listing all links for each.
	relistSoon = 50 * time.Millisecond
	// relistInterval is how often links are listed without any event: what
	// others detached is attached again, what failed is tried again.
	relistInterval = 30 * time.Second
)

// errOverrun says that events were lost.
var errOverrun = errors.New("subscription ended")

// linkWatcher keeps the attachments in step with the links of the host. Its
// methods are called by the goroutine in run, but known and listLinks, which the
// drains use.
type linkWatcher struct {
	*Meter
	// mu is held by who writes existing or retries, and by who reads them from
	// another goroutine.
	mu sync.Mutex
	// existing are the links that were there when counting began, so that their
	// past is nobody's: deviceOf by ifindex.
	existing map[uint32]string
	retries  map[uint32]*retry
	greeted  bool
	waiting  map[uint32]*waiting
	// sightings are by ifindex, of all links that are there.
	sightings map[uint32]sighting
	// detached are points whose programs others seem to have removed, by the names of their
	// interfaces: the next listing decides.
	detached map[uint32]string
	// undetached are hooks that could not be detached, to be tried again.
	undetached []hooks
}

// retry is when an attachment is tried again.
type retry struct {
	at    time.Time
	pause time.Duration
	// problem is why it could not be made, nil if others ended it, or if the
	// link of this name is not wanted any more.
	name    string
	problem error
}

// newLinkWatcher takes note of the links that are there.
func newLinkWatcher(m *Meter) (*linkWatcher, error) {
	w := &linkWatcher{
		Meter: m, existing: make(map[uint32]string),
		retries: make(map[uint32]*retry), waiting: make(map[uint32]*waiting),
		sightings: make(map[uint32]sighting), detached: make(map[uint32]string),
	}
	links, err := w.listLinks()
	for _, l := range links {
		w.existing[uint32(l.Attrs().Index)] = deviceOf(l)
	}
	return w, err
}

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
		w.log.Warn("lost events, listing all links again")
	}
}

// follow subscribes, lists what is there and follows the events.
func (w *linkWatcher) follow(ctx context.Context) error {
	updates, stop, err := w.subscribe()
	if err != nil {
		return err
	}
	defer stop()
	removed, stopHooks, err := w.subscribeHooks()
	if err != nil {
		return err
	}
	defer stopHooks()
	relist := time.NewTimer(0)
	defer relist.Stop()
	for soon := false; ; {
		changed := true
		select {
		case <-ctx.Done():
			return nil
		case <-relist.C:
			w.list()
			relist.Reset(w.untilListing())
			soon, changed = false, false
		case point, ok := <-removed:
			if !ok {
				return errOverrun
			}
			changed = w.unhooked(point)
		case point := <-w.suspects:
			changed = w.unhooked(point)
		case update, ok := <-updates:
			if !ok {
				return errOverrun
			}
			w.event(update)
		}
		// The other end of a veth that has moved tells nothing of itself.
		if changed && !soon {
			relist.Reset(relistSoon)
			soon = true
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

func (w *linkWatcher) listLinks() (links []netlink.Link, err error) {
	err = w.options.within(func() (err error) {
		links, err = listLinks()
		return err
	})
	return links, err
}

// listLinks lists the links of this network namespace.
func listLinks() (links []netlink.Link, err error) {
	const tries = 10
	for range tries {
		links, err = netlink.LinkList()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return links, nil
}

func byIndex(links []netlink.Link) map[uint32]netlink.Link {
	all := make(map[uint32]netlink.Link, len(links))
	for _, l := range links {
		all[uint32(l.Attrs().Index)] = l
	}
	return all
}

// list brings the attachments in step with the links that are there.
func (w *linkWatcher) list() {
	links, err := w.listLinks()
	if err != nil {
		w.log.Warn("follow links", "error", err)
		return
	}
	w.compare(links)
}

// compare brings the attachments in step with a listing, which may be older than they are.
func (w *linkWatcher) compare(links []netlink.Link) {
	w.detachAgain()
	present := byIndex(links)
	w.tellGaps(present)
	for _, point := range w.attachments.points((*attachment).living) {
		l, there := present[point]
		if !there || w.replaced(point, l) {
			w.vanished(point)
		} else if !w.alive(point) {
			w.lose(point)
		}
	}
	w.askReady(present)
	for _, l := range links {
		w.consider(l)
	}
	w.forgetAbsent(present)
	w.greet()
}

// forgetAbsent forgets what is remembered of links that are gone without an event.
func (w *linkWatcher) forgetAbsent(present map[uint32]netlink.Link) {
	absent := func(point uint32) bool { return present[point] == nil }
	w.mu.Lock()
	maps.DeleteFunc(w.retries, func(point uint32, _ *retry) bool { return absent(point) })
	maps.DeleteFunc(w.existing, func(point uint32, _ string) bool { return absent(point) })
	w.mu.Unlock()
	w.unsee(absent)
	w.attachments.forgetAbsent(absent)
}

// greet says what the first listing gave, and asks for the first drain of new maps: it
// waits for no interval, as what it reads is empty, and what was counted since the
// attachments rests from then on. Maps of an earlier meter have had theirs.
func (w *linkWatcher) greet() {
	if w.greeted {
		return
	}
	w.greeted = true
	if w.newMaps {
		w.drainEarly()
	}
	metered := len(w.attachments.points((*attachment).living))
	if metered == 0 {
		w.log.Warn("no interface to meter yet, watching for some to come", "interfaces", w.options.wanted())
		return
	}
	w.log.Info("metering", "interfaces", metered)
}

func (w *linkWatcher) event(update netlink.LinkUpdate) {
	if update.IfInfomsg.Family != unix.AF_UNSPEC {
		return // of a bridge about its port: the link itself has not changed
	}
	// The event may be older than the last listing, and the index another's by
	// now: what we know of is gone only if its programs do not run there, and what
	// the event says of a device that we know by other names need not be true of it.
	point := uint32(update.Link.Attrs().Index)
	switch {
	case update.Header.Type == unix.RTM_DELLINK:
		if !w.alive(point) {
			w.vanished(point)
		}
	case w.changed(point, update.Link):
		w.reconsider(point)
	default:
		w.consider(update.Link)
	}
}

// linkNow returns the link that has the ifindex at this moment.
func (w *linkWatcher) linkNow(point uint32) (l netlink.Link, err error) {
	err = w.options.within(func() (err error) {
		l, err = netlink.LinkByIndex(int(point))
		return err
	})
	return l, err
}

// reconsider decides about a link as it is now.
func (w *linkWatcher) reconsider(point uint32) {
	l, err := w.linkNow(point)
	if err == nil {
		w.consider(l)
	} else if err := unlessVanished(err); err != nil {
		w.log.Warn("look at a link", "ifindex", point, "error", err)
	}
}

// vanished lets go of a link that has been deleted or moved away. In the latter
// case our programs are still on it, and detaching reaches them.
func (w *linkWatcher) vanished(point uint32) {
	w.mu.Lock()
	delete(w.existing, point)
	delete(w.retries, point)
	w.mu.Unlock()
	delete(w.waiting, point)
	delete(w.sightings, point)
	delete(w.detached, point)
	w.attachments.with(point, func(a *attachment) {
		if a != nil && a.living() {
			a.mayReturn = a.hooks.mayReturn()
		}
	})
	w.leave(point)
	w.attachments.vanished(point)
}

// changed reports whether the link differs from the living attachment with its
// ifindex.
func (w *linkWatcher) changed(point uint32, l netlink.Link) (changed bool) {
	w.attachments.with(point, func(a *attachment) { changed = a != nil && a.living() && a.device != deviceOf(l) })
	return changed
}

// replaced reports whether the ifindex of a living attachment has come back as
// another device's, which lost events do not tell.
func (w *linkWatcher) replaced(point uint32, l netlink.Link) bool {
	return w.changed(point, l) && !w.alive(point) // else it has another name or address
}

// existed reports whether a link was there when counting began.
func (w *linkWatcher) existed(l netlink.Link) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	device, known := w.existing[uint32(l.Attrs().Index)]
	return known && sameDevice(device, deviceOf(l))
}

// alive reports whether our programs run on the link with this index.
func (w *linkWatcher) alive(point uint32) bool {
	var h hooks
	w.attachments.with(point, func(a *attachment) {
		if a != nil {
			h = a.hooks
		}
	})
	if h == (hooks{}) {
		return false
	}
	alive := true
	err := w.options.within(func() (err error) {
		alive, err = h.alive(int(point))
		return err
	})
	if err != nil {
		w.log.Warn("look whether programs are still attached", "ifindex", point, "error", err)
		return true
	}
	return alive
}

// consider decides about one link that is there.
func (w *linkWatcher) consider(l netlink.Link) {
	point, wanted := uint32(l.Attrs().Index), w.selector.wants(l)
	if w.replaced(point, l) {
		w.vanished(point)
	}
	w.see(l)
	living := false
	w.attachments.with(point, func(a *attachment) {
		living = a != nil && a.living()
		if living && wanted { // the last word of one that goes says less than was known
			a.identify(l)
		}
	})
	if r := w.retries[point]; r != nil && !wanted {
		w.mu.Lock()
		r.problem = nil
		w.mu.Unlock()
	}
	switch {
	case living && !wanted:
		w.leave(point)
	case wanted && !living && w.mayAttach(l):
		w.tryJoin(point, l.Attrs().Name)
	}
}
