// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sync/errgroup"
)

// Options are what a [Meter] needs.
type Options struct {
	// PinPath is a directory of ours on a BPF file system, made if it is not
	// there; the maps are pinned in it. Two meters have two.
	PinPath string
	// Interfaces are globs of interface names, a leading ! excludes. Without an
	// including one: every veth whose other end is in another network namespace.
	Interfaces []string
	// Attach is how programs are attached; AttachAuto if empty.
	Attach AttachMode
	// MapMemory is the memory of both sets in bytes; DefaultMapMemory if 0.
	MapMemory uint64
	// DrainInterval is the time between two drains; 5 s if 0.
	DrainInterval time.Duration
	// Sink takes the drained epochs.
	Sink Sink
	// OnDrain is called after each drain with how long it took; it may be nil.
	OnDrain func(time.Duration)
	Logger  *slog.Logger

	// within runs a function in the network namespace that is metered; tests
	// have one of their own.
	within func(func() error) error
	// receiveBuffer is the link subscription's, in bytes.
	receiveBuffer int
	// noWakeups keeps sets from being drained before their time.
	noWakeups bool
}

const (
	defaultDrainInterval = 5 * time.Second
	// defaultReceiveBuffer holds the link events of some 2,000 veths, in bytes.
	defaultReceiveBuffer = 4 << 20
	// lockWait is how long New waits for another agent to let go of the pin path.
	lockWait = 60 * time.Second
)

func (o Options) withDefaults() Options {
	if o.Attach == "" {
		o.Attach = AttachAuto
	}
	if o.MapMemory == 0 {
		o.MapMemory = DefaultMapMemory
	}
	if o.DrainInterval == 0 {
		o.DrainInterval = defaultDrainInterval
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.receiveBuffer == 0 {
		o.receiveBuffer = defaultReceiveBuffer
	}
	if o.within == nil {
		o.within = func(f func() error) error { return f() }
	}
	return o
}

// Meter is the kernel side at work, see the package's comment.
type Meter struct {
	options  Options
	log      *slog.Logger
	selector selector
	capacity uint32
	cpus     int

	lock     *pathLock
	objects  *objects
	grace    *grace
	drainer  *drainer
	attacher *attacher
	pressure pressure
	links    *linkWatcher

	attachments *registry
	// gate is held by whoever drains or lets go of the maps; released and compared
	// belong to its holder.
	gate     chan struct{}
	released bool
	compared time.Time
	// early asks for a drain before its time.
	early chan struct{}
	// unsettled tells that there is an attachment whose ledger has not settled.
	unsettled chan struct{}
	last      atomic.Pointer[DrainStatus]
	closed    atomic.Bool
}

// New loads the programs and pins the maps; nothing is attached before Run. It
// waits up to a minute, or until ctx is done, while another agent holds the pin
// path. What an agent that was killed has left there is removed.
func New(ctx context.Context, o Options) (*Meter, error) {
	o = o.withDefaults()
	selector, err := newSelector(o.Interfaces)
	if err != nil {
		return nil, err
	}
	m := &Meter{
		options: o, log: o.Logger, selector: selector,
		attachments: newRegistry(),
		gate:        make(chan struct{}, 1),
		early:       make(chan struct{}, 1),
		unsettled:   make(chan struct{}, 1),
	}
	m.last.Store(&DrainStatus{})
	if err := m.load(ctx); err != nil {
		return nil, errors.Join(err, m.release())
	}
	return m, nil
}

// load acquires what the meter owns in the kernel, in the order in which
// release lets go of it backwards.
func (m *Meter) load(ctx context.Context) (err error) {
	if err := preflight(); err != nil {
		return err
	}
	if m.lock, err = lockPath(ctx, m.options.PinPath, lockWait, m.log); err != nil {
		return err
	}
	if m.links, err = newLinkWatcher(m); err != nil {
		return err
	}
	if err := m.sweep(); err != nil {
		return err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	if m.cpus, err = ebpf.PossibleCPU(); err != nil {
		return fmt.Errorf("count possible CPUs: %w", err)
	}
	m.capacity = Capacity(m.options.MapMemory, m.cpus)
	m.log.Info("maps", "map-memory", m.options.MapMemory, "flows-a-set", m.capacity,
		"holds-new-flows-per-second", uint64(float64(m.capacity)/m.options.DrainInterval.Seconds()))
	if m.objects, err = loadObjects(m.capacity); err != nil {
		return explain(err)
	}
	if m.grace, err = newGrace(); err != nil {
		return err
	}
	m.drainer = newDrainer(&m.objects.MeterObjects, m.grace, m.cpus)
	m.attacher = newAttacher(m.options.Attach, &m.objects.MeterObjects, filterHandle(m.options.PinPath))
	m.pressure = newPressure(m.capacity, m.cpus)
	if _, err := m.setHighWater(); err != nil {
		return err
	}
	return pinMaps(m.options.PinPath, m.objects.pinned())
}

// sweep removes what a killed agent has left behind under our pin path.
func (m *Meter) sweep() error {
	removed, err := remains{path: m.options.PinPath, within: m.options.within}.remove()
	for _, what := range removed {
		m.log.Info("removed what an earlier agent left", "what", what)
	}
	return err
}

// Run attaches to the interfaces that are there and to those that come, and
// drains, until ctx is done. It returns nil then, or the error that keeps it
// from going on.
func (m *Meter) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.links.run(ctx) })
	group.Go(func() error { return m.drainRegularly(ctx) })
	group.Go(func() error { return m.awaitWakeups(ctx) })
	group.Go(func() error { return m.settleLedgers(ctx) })
	return group.Wait()
}

// ErrClosed is returned when a meter is asked for something after its end.
var ErrClosed = errors.New("the meter is closed")

// Close detaches from all interfaces, publishes what was counted until then and
// removes the pins. It may be called more than once.
func (m *Meter) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	m.links.leaveAll()
	var errs []error
	for range sets { // the last flip, and the set that it froze
		errs = append(errs, m.Drain(context.Background()))
	}
	m.gate <- struct{}{}
	defer func() { <-m.gate }()
	m.released = true
	return errors.Join(append(errs, m.release())...)
}

// release gives back what load acquired.
func (m *Meter) release() error {
	var errs []error
	if m.objects != nil {
		errs = append(errs, unpinMaps(m.options.PinPath, m.objects.pinned()), m.objects.close())
	}
	if m.grace != nil {
		errs = append(errs, m.grace.close())
	}
	if m.lock != nil {
		errs = append(errs, m.lock.release())
	}
	return errors.Join(errs...)
}
