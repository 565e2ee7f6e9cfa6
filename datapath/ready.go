// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"math"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
)

const (
	// readyWait is for how long a link that appears waits for Options.Ready: CNI
	// plugins are done long before, and a link without a pod never is ready.
	readyWait = time.Minute
	// askInterval is how often at most a waiting link is asked about, besides at
	// link events.
	askInterval = time.Second
)

// waiting is a link that is not ready yet.
type waiting struct {
	device string // see deviceOf
	since  time.Time
	over   bool // it is ready, or has waited long enough
}

// mayAttach reports whether a link needs no waiting, or has waited. One that needs
// some is asked about by the next listing.
//
// With netlink a clsact qdisc on a link that a chain of CNI plugins still works on
// makes the plugin bandwidth fail, and the pod with it. With TCX there is no qdisc.
func (w *linkWatcher) mayAttach(l netlink.Link) bool {
	point := uint32(l.Attrs().Index)
	if w.options.Ready == nil || w.existed(l) || w.attachments.hadDevice(point) || !w.attacher.byNetlink() {
		return true
	}
	known := w.waiting[point]
	if known == nil || known.device != deviceOf(l) {
		known = &waiting{device: deviceOf(l), since: time.Now()}
		w.waiting[point] = known
	}
	return known.over
}

// askReady asks about the links that wait, of those that are present.
func (w *linkWatcher) askReady(present map[uint32]netlink.Link) {
	for point := range w.waiting {
		if present[point] == nil || w.attachments.hadDevice(point) {
			delete(w.waiting, point)
		}
	}
	if len(w.waiting) == 0 {
		return
	}
	var found map[uint32][]netip.Addr
	err := w.options.within(func() (err error) {
		found, err = routedAddresses()
		return err
	})
	if err != nil {
		w.log.Warn("look for the addresses behind interfaces", "error", err)
	}
	for point, l := range w.waiting {
		switch {
		case l.over:
		case w.options.Ready(w.candidate(present[point], found[point])):
			l.over = true
		case time.Since(l.since) >= w.options.readyWait:
			w.log.Info("no pod has the addresses of an interface yet: attaching all the same",
				"ifindex", point, "addresses", found[point], "waited", w.options.readyWait)
			l.over = true
		}
	}
}

// untilListing is the time until the next listing when nothing happens.
func (w *linkWatcher) untilListing() time.Duration {
	if len(w.detached) > 0 { // whether their interfaces stay
		return relistSoon
	}
	if len(w.waiting) == 0 {
		return relistInterval
	}
	return min(askInterval, w.options.DrainInterval)
}

// byNetlink reports whether interfaces will be attached with netlink.
func (a *attacher) byNetlink() bool {
	if a.mode == AttachAuto && !a.probed {
		_, err := link.AttachTCX(link.TCXOptions{ // no interface has this index
			Interface: math.MaxInt32, Program: a.programs[flows.Transmit], Attach: tcxAttachType(flows.Transmit),
		})
		if errors.Is(err, ebpf.ErrNotSupported) {
			a.mode = AttachNetlink
		}
		a.probed = true
	}
	return a.mode == AttachNetlink
}
