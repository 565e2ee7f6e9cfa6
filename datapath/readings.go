// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"time"

	"github.com/vishvananda/netlink"
)

// How often unsettled ledgers are read: soon at first, as nearly all settle at
// once, then more and more rarely.
const (
	settleSoon   = settleAfter + 2*time.Millisecond
	settleRarely = time.Second
)

// settleLedgers reads the ledgers of new attachments until they have settled.
func (m *Meter) settleLedgers(ctx context.Context) error {
	timer := time.NewTimer(settleSoon)
	defer timer.Stop()
	pause := settleSoon
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.unsettled:
			pause = settleSoon
		case <-timer.C:
			pause = min(2*pause, settleRarely)
		}
		if m.readLedgers(func(a *attachment) bool { return a.living() && !a.ledger.settled }) > 0 {
			timer.Reset(pause)
		}
	}
}

func (m *Meter) settleSoon() {
	select {
	case m.unsettled <- struct{}{}:
	default: // told already
	}
}

// readLedgers takes a reading of the attachments that keep holds for, and
// returns how many those are. An interface that carries packets all the time may
// give none, and one that has just vanished gives none.
func (m *Meter) readLedgers(keep func(*attachment) bool) int {
	points := m.attachments.points(keep)
	if len(points) == 0 {
		return 0
	}
	err := m.options.within(func() error {
		for _, point := range points {
			if r, ok := m.reading(point); ok {
				m.attachments.with(point, func(a *attachment) {
					if a != nil && a.living() {
						a.read(r)
					}
				})
			}
		}
		return nil
	})
	if err != nil {
		m.log.Warn("read the interfaces' own counters", "error", err)
	}
	return len(points)
}

// reading reads both sides' counters of a point. It is false if a packet came
// meanwhile.
func (m *Meter) reading(point uint32) (reading, bool) {
	first, err := netlink.LinkByIndex(int(point))
	if err != nil {
		return reading{}, false
	}
	ours, err := m.drainer.counted(point)
	if err != nil {
		return reading{}, false
	}
	second, err := netlink.LinkByIndex(int(point))
	if err != nil {
		return reading{}, false
	}
	r := reading{counters: ledgerOf(first), ours: ours, at: time.Now()}
	return r, r.counters == ledgerOf(second)
}
