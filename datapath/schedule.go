// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ratelog"
)

// Drain reads what has rested, publishes it and flips. It waits for a drain that
// is going on, or until ctx is done.
func (m *Meter) Drain(ctx context.Context) error {
	return m.drainIf(ctx, func() bool { return true })
}

// Fresh drains unless the last drain ended less than age ago. Who waits for
// another's drain is served by it.
func (m *Meter) Fresh(ctx context.Context, age time.Duration) error {
	return m.drainIf(ctx, func() bool { return time.Since(m.last.Load().Ended) >= age })
}

func (m *Meter) drainIf(ctx context.Context, due func() bool) error {
	if err := m.takeGate(ctx); err != nil {
		return err
	}
	defer func() { <-m.gate }()
	if m.released {
		return ErrClosed
	}
	if !due() {
		return nil
	}
	return m.drain()
}

// drainRegularly drains every interval, counted from the end of whatever drain
// was the last, so that the values keep an even distance to scrapes.
func (m *Meter) drainRegularly(ctx context.Context) error {
	timer := time.NewTimer(m.options.DrainInterval)
	defer timer.Stop()
	outage := ratelog.Outage{Log: m.log, Level: slog.LevelError, Wrong: "drain", Over: "drains work again"}
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-m.early:
			err = m.Drain(ctx)
		case <-timer.C:
			err = m.Fresh(ctx, m.options.DrainInterval)
		}
		if ctx.Err() == nil {
			outage.Set(err)
		}
		rest := m.options.DrainInterval - time.Since(m.last.Load().Ended)
		timer.Reset(max(rest, 10*time.Millisecond))
	}
}

// awaitWakeups passes on what programs say when a set reaches high water.
func (m *Meter) awaitWakeups(ctx context.Context) error {
	reader, err := ringbuf.NewReader(m.objects.Wakeups)
	if err != nil {
		return fmt.Errorf("read wakeups: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { reader.Close() })
	defer stop()
	var record ringbuf.Record
	for {
		err := reader.ReadInto(&record)
		if errors.Is(err, ringbuf.ErrClosed) {
			return nil
		}
		if err != nil {
			return errors.Join(fmt.Errorf("read wakeups: %w", err), reader.Close())
		}
		m.drainEarly()
	}
}

func (m *Meter) drainEarly() {
	select {
	case m.early <- struct{}{}:
	default: // asked for already
	}
}

// drain is one drain with all that belongs to it. The caller holds the gate.
func (m *Meter) drain() error {
	began := time.Now()
	m.look(began)
	// What leaves from now on may still be written to the set that the coming
	// flip freezes: it takes two more drains.
	left := make(map[*registry][]uint32)
	for _, r := range m.registries() {
		left[r] = r.points(func(a *attachment) bool { return !a.living() })
	}
	published := publication{meter: m}
	err := m.drainer.drain(&published)
	took := time.Since(began)
	m.note(&published, took, err)
	if err != nil {
		return err
	}
	if err := m.relievePressure(&published, took); err != nil {
		return err
	}
	for r, points := range left {
		if err := m.forget(r, r.drained(points)); err != nil {
			return err
		}
	}
	return nil
}

// forget deletes what the kernel holds of points, and only then lets them be used
// again.
func (m *Meter) forget(r *registry, points []uint32) error {
	for _, point := range points {
		counted, err := m.drainer.counted(point)
		if err != nil {
			return err
		}
		if err := m.drainer.deletePoint(point); err != nil {
			return err
		}
		r.forget(point, counted)
	}
	return nil
}

// publication is the sink between the drainer and the meter's: it completes an
// epoch, passes it on and remembers what it was like.
type publication struct {
	meter                  *Meter
	number                 uint64
	inserted               uint64
	span                   time.Duration
	residue, unplaced, gap uint64 // bytes
	unsaved                bool
}

// Publish implements [Sink].
func (p *publication) Publish(epoch *flows.Epoch) error {
	seeds := p.meter.attachments.complete(epoch)
	p.meter.hosts.each(func(a *attachment) { epoch.Interfaces = append(epoch.Interfaces, a.domain()) })
	if err := p.meter.options.Sink.Publish(epoch); err != nil {
		return err
	}
	p.meter.attachments.seeded(seeds)
	p.meter.hosts.seeded(nil)
	p.number, p.gap = epoch.Number, epoch.ConservationError
	p.unsaved = epoch.Unsaved
	p.meter.drainer.unsaved[epoch.Number&1] = false
	p.span, p.inserted = epoch.End.Sub(epoch.Start), p.meter.drainer.inserted
	for _, total := range epoch.Totals {
		p.residue += total.Residue.Bytes
		p.unplaced += total.Unplaced.Bytes
	}
	return nil
}

// note keeps what status shows of the last drain.
func (m *Meter) note(p *publication, took time.Duration, err error) {
	before := m.last.Load()
	now := *before
	if err != nil {
		now.Problem = err.Error()
	} else {
		now = DrainStatus{
			Count: before.Count + 1, Epoch: p.number, Ended: time.Now(), Took: took,
		}
	}
	m.last.Store(&now)
	if err == nil && m.options.OnDrain != nil {
		m.options.OnDrain(took)
	}
	if p.gap > 0 {
		m.log.Error("conservation error: flows and totals disagree, please report it", "epoch", p.number, "bytes", p.gap)
	}
}
