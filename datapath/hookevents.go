// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// suspectsWaiting is how many points wait for the watcher to look at them; what
// is over that is found by the next comparison.
const suspectsWaiting = 64

// subscribeHooks returns the points of which a filter or qdisc was removed, and a
// function that ends them. The channel is closed when events were lost. Of TCX
// links that others detach the kernel tells nobody.
func (w *linkWatcher) subscribeHooks() (<-chan uint32, func(), error) {
	var socket *nl.NetlinkSocket
	err := w.options.within(func() (err error) {
		socket, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_TC)
		return err
	})
	if err == nil {
		err = socket.SetReceiveBufferSize(w.options.receiveBuffer, true)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("subscribe to filter and qdisc events: %w", err)
	}
	removed, done := make(chan uint32, suspectsWaiting), make(chan struct{})
	go func() {
		defer close(removed)
		for {
			messages, from, err := socket.Receive()
			if err != nil {
				w.log.Debug("filter and qdisc subscription", "error", err)
				return
			}
			if from.Pid != nl.PidKernel {
				continue
			}
			w.hooksChanged.Store(true)
			for i := range messages {
				passRemoved(&messages[i], removed, done)
			}
		}
	}()
	return removed, func() {
		close(done)
		socket.Close()
		for range removed { // until it has ended
		}
	}, nil
}

// passRemoved passes on the interface of a removed filter or qdisc: it is the
// second word of struct tcmsg (linux/rtnetlink.h).
func passRemoved(m *syscall.NetlinkMessage, removed chan<- uint32, done <-chan struct{}) {
	const ifindex, end = 4, 8
	kind := m.Header.Type
	if kind != unix.RTM_DELTFILTER && kind != unix.RTM_DELQDISC || len(m.Data) < end {
		return
	}
	select {
	case removed <- binary.NativeEndian.Uint32(m.Data[ifindex:end]):
	case <-done:
	}
}

// lookAgain asks the watcher to look whether our programs are still attached.
func (m *Meter) lookAgain(point uint32) {
	select {
	case m.suspects <- point:
	default:
	}
}

// unhooked lets go of an attachment whose programs others have removed, and reports
// whether it is to be attached again soon. What passes until then is a gap. With
// somebody who does that again and again there is no race.
func (w *linkWatcher) unhooked(point uint32) bool {
	var metered, again bool
	w.attachments.with(point, func(a *attachment) {
		if metered = a != nil && a.metered(); metered {
			again = a.resumed && time.Since(a.attached) < firstRetry
		}
	})
	if !metered || w.alive(point) {
		return false
	}
	if !w.lose(point) {
		return false
	}
	if again {
		w.mu.Lock()
		w.retries[point] = &retry{at: time.Now().Add(firstRetry), pause: firstRetry}
		w.mu.Unlock()
	}
	return true
}

// lose lets go of an attachment whose programs do not run any more, and reports whether its
// interface is still there.
func (w *linkWatcher) lose(point uint32) bool {
	var notFound netlink.LinkNotFoundError
	if _, err := w.linkNow(point); errors.As(err, &notFound) {
		w.vanished(point)
		return false
	}
	w.attachments.with(point, func(a *attachment) { w.detached[point] = a.name })
	w.leave(point)
	return true
}

// tellGaps says of which interfaces others have removed the programs. Who deletes an interface may
// remove them first, so that only one that is in a later listing has been detached.
func (w *linkWatcher) tellGaps(present map[uint32]netlink.Link) {
	for point, name := range w.detached {
		if l := present[point]; l != nil && l.Attrs().Name == name {
			w.tellGap(name)
		}
	}
	clear(w.detached)
}
