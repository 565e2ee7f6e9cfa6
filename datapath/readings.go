// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"time"

	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/vishvananda/netlink"
)

const (
	// How often unsettled ledgers are read: soon at first, as nearly all settle at
	// once, then more and more rarely.
	settleSoon   = settleAfter + 2*time.Millisecond
	settleRarely = time.Second

	// compareInterval is how often at most all ledgers are read.
	compareInterval = time.Second
)

// settleLedgers reads the ledgers of new attachments until they have settled, and
// of those that were shadowed until it is known what was hidden.
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
		points := m.attachments.points(func(a *attachment) bool { return a.metered() && a.ledger.unsure() })
		for _, point := range points {
			m.readLedger(point)
		}
		if len(points) > 0 {
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

// readLedger takes a reading of one attachment. An interface that has just
// vanished gives none.
func (m *Meter) readLedger(point uint32) {
	var r reading
	err := m.options.within(func() error {
		first, err := netlink.LinkByIndex(int(point))
		if err != nil {
			return err
		}
		if r.ours, err = m.drainer.counted(point); err != nil {
			return err
		}
		second, err := netlink.LinkByIndex(int(point))
		if err != nil {
			return err
		}
		r.take(first, second, time.Now())
		return m.firstBypass(second, r.at)
	})
	if err != nil {
		m.log.Debug("read an interface's own counters", "ifindex", point, "error", err)
		return
	}
	m.attachments.with(point, func(a *attachment) {
		if a != nil && a.metered() {
			a.read(r)
		}
	})
}

// compareLedgers takes a reading of all attachments at once: two listings of all
// links with our counters in between. The caller holds the gate.
func (m *Meter) compareLedgers(now time.Time) error {
	if now.Sub(m.compared) < compareInterval {
		return nil
	}
	m.compared = now
	first, err := m.links.listLinks()
	if err != nil {
		return err
	}
	ours, err := m.drainer.countedAll()
	if err != nil {
		return err
	}
	m.hosts.noteCounted(ours)
	second, err := m.links.listLinks()
	if err != nil {
		return err
	}
	after := byIndex(second)
	for _, l := range first {
		point := uint32(l.Attrs().Index)
		if last, there := after[point]; there {
			r := reading{ours: ours[point]}
			r.take(l, last, now)
			m.compareLedger(point, r)
		}
	}
	if err := m.compareBypass(second, now); err != nil {
		return err
	}
	return m.doubt(second, now)
}

// compareLedger takes one reading of many. While a program of ours is not where it
// was, readings say nothing: what passes is the gap until it is attached again.
func (m *Meter) compareLedger(point uint32, r reading) {
	err := m.lookAhead(point, &r)
	if errors.Is(err, errDetached) {
		m.lookAgain(point)
		return
	}
	if err != nil {
		m.log.Debug("look who is before us", "ifindex", point, "error", err)
	}
	closing := false
	m.attachments.with(point, func(a *attachment) {
		if a != nil && a.metered() {
			a.read(r)
			closing = a.ledger.unsure()
		}
	})
	if closing {
		m.settleSoon()
	}
}

// countedAll returns what both sets hold of every point since it was created. It
// may be called while programs write, by whoever holds the gate.
func (d *drainer) countedAll() (map[uint32]byDirection, error) {
	all := make(map[uint32]byDirection)
	for _, s := range d.sets {
		totals, err := s.readTotals()
		if err != nil {
			return nil, err
		}
		for key, total := range totals {
			sum := all[key.Point]
			sum[key.Direction].Add(countersOf(total))
			all[key.Point] = sum
		}
	}
	return all, nil
}

func countersOf(total bpf.MeterTotalCounters) flows.Counters {
	return flows.Counters{Bytes: total.Bytes, Packets: total.Packets}
}
