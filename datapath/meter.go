// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/podmeter/podmeter/flows"
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
	// Uplinks are globs of the same kind, of interfaces that lead out of this node;
	// one that both choose is an uplink.
	Uplinks []string
	// Role says which of both this meter meters.
	Role Role
	// XDP is how what uplinks receive is metered; XDPOff if empty.
	XDP XDPMode
	// Attach is how programs are attached; AttachAuto if empty.
	Attach AttachMode
	// MapMemory is the memory of both sets in bytes; DefaultMapMemory if 0.
	MapMemory uint64
	// DrainInterval is the time between two drains; 5 s if 0.
	DrainInterval time.Duration
	// Cgroups is the root of the cgroup v2 hierarchy: adopted programs on a cgroup that
	// switch off a foreign one are found there at once, else by the first call of
	// [Meter.MeterHostPods]. It may be empty.
	Cgroups string
	// Sink takes the drained epochs.
	Sink Sink
	// Saved returns what an earlier meter of this pin path had to remember, nil if
	// nothing is known. It is called once, when no other meter uses the pin path
	// any more, and may be nil. [Meter.Resumed] tells whether it could be used.
	Saved func() *SavedState
	// OnDrain is called after each drain with how long it took; it may be nil.
	OnDrain func(time.Duration)
	// Programs, if not nil, loads the meter's programs as another build of the same
	// sources has them. It is for tests, which take what the kernel verifies sooner.
	Programs func() (*ebpf.CollectionSpec, error)
	// Ready says whether a link that appears may be attached, with what is known of
	// it as an interface; nil: at once. It is asked where programs are
	// attached with netlink, of links that were not there at the first start, at
	// each link event and once a second, or each DrainInterval if that is shorter,
	// until it says yes or a minute has passed. It must not wait for anything.
	Ready  func(flows.Interface) bool
	Logger *slog.Logger

	// within runs a function in the network namespace that is metered; tests
	// have one of their own.
	within func(func() error) error
	// receiveBuffer is the link subscription's, in bytes.
	receiveBuffer int
	// readyWait is for how long a link waits for Ready.
	readyWait time.Duration
	// yieldPause is yieldPause, or a test's.
	yieldPause time.Duration
	// buckets are those of a CPU in a front, or 0 for what fits the memory.
	buckets uint32
	// noWakeups keeps sets from being drained before their time.
	noWakeups bool
	// build is this build, or one that tests make of it.
	build build
	// countsRedirects tells whether the kernel does, see there.
	countsRedirects func() bool
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
	if o.readyWait == 0 {
		o.readyWait = readyWait
	}
	if o.yieldPause == 0 {
		o.yieldPause = yieldPause
	}
	if o.Saved == nil {
		o.Saved = func() *SavedState { return nil }
	}
	if o.build.spec == nil {
		o.build = thisBuild()
		if o.Programs != nil {
			o.build.spec = o.Programs
		}
	}
	if o.countsRedirects == nil {
		o.countsRedirects = countsRedirects
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
	selector chooser
	capacity uint32
	// buckets are those that each possible CPU has in front of either set.
	buckets uint32
	cpus    int

	lock     *pathLock
	objects  *objects
	grace    *grace
	drainer  *drainer
	attacher *attacher
	pressure pressure
	links    *linkWatcher

	// attachments are those of interfaces, hosts those of cgroups.
	attachments, hosts *registry
	// hosting is held by who attaches to cgroups, yields are those that are left alone.
	hosting sync.Mutex
	yields  *yields
	setID   uint64
	// newMaps is whether the maps were made by this meter: its first drain reads a set
	// that nobody has written.
	newMaps bool
	// resumed is whether the meter goes on from Options.Saved, rejected why not.
	resumed  bool
	unsaved  bool // see [Meter.Unsaved]
	rejected error

	// gate is held by whoever drains or lets go of the maps; released, compared and
	// redirects belong to its holder.
	gate      chan struct{}
	released  bool
	compared  time.Time
	redirects redirects
	// hooksChanged is whether filters or qdiscs came or went since the last look.
	hooksChanged atomic.Bool
	// early asks for a drain before its time.
	early chan struct{}
	// unsettled tells that there is an attachment whose ledger has not settled.
	unsettled chan struct{}
	// suspects are points whose programs may have been detached by others.
	suspects chan uint32
	last     atomic.Pointer[DrainStatus]
	closed   atomic.Bool
}

// New loads the programs and pins the maps, or goes on with those that an earlier
// meter has left; nothing more is attached before Run. It waits up to a minute, or
// until ctx is done, while another agent holds the pin path.
func New(ctx context.Context, o Options) (*Meter, error) {
	o = o.withDefaults()
	selector, err := o.selector()
	if err != nil {
		return nil, err
	}
	m := &Meter{
		options: o, log: o.Logger, selector: selector,
		attachments: newRegistry(),
		hosts:       newRegistry(),
		yields:      newYields(o.yieldPause, o.Logger),
		gate:        make(chan struct{}, 1),
		early:       make(chan struct{}, 1),
		unsettled:   make(chan struct{}, 1),
		suspects:    make(chan uint32, suspectsWaiting),
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
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	if m.cpus, err = ebpf.PossibleCPU(); err != nil {
		return fmt.Errorf("count possible CPUs: %w", err)
	}
	m.capacity, m.buckets = sizes(m.options.MapMemory, m.cpus)
	m.buckets = cmp.Or(m.options.buckets, m.buckets)
	m.log.Info("maps", "map-memory", m.options.MapMemory, "flows-a-set", m.capacity, "front-slots-a-cpu", uint32(frontWays)*m.buckets,
		"holds-new-flows-per-second", uint64(float64(m.capacity)/m.options.DrainInterval.Seconds()))
	adopted, err := m.loadMaps()
	if err != nil {
		return err
	}
	if m.grace, err = newGrace(); err != nil {
		return err
	}
	m.drainer = newDrainer(&m.objects.MeterObjects, m.options.build.layouts[0], m.grace, m.cpus)
	m.attacher = newAttacher(m.options.Attach, &m.objects.MeterObjects, m.options.PinPath)
	m.attacher.useXDP(&m.options, m.objects.PodmeterXdp)
	m.pressure = newPressure(m.capacity, m.cpus)
	if _, err := m.setHighWater(); err != nil {
		return err
	}
	if adopted {
		return m.adopt()
	}
	return m.begin()
}

// loadMaps loads the programs with the pinned maps, if there are, or with fresh
// ones.
func (m *Meter) loadMaps() (adopted bool, err error) {
	spec, err := m.options.build.sizedSpec(m.capacity, m.buckets, m.cpus)
	if err != nil {
		return false, err
	}
	m.options.trim(spec)
	maps, err := openPins(m.options.PinPath, spec, m.pins(), m.flowPins())
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		m.log.Warn("the pinned maps are not all there, or not podmeter's: begin anew", "error", err)
		err = nil
	}
	if err == nil && maps == nil {
		err = m.sweep() // filters may be there of an agent whose pins are not
	}
	if err != nil {
		return false, err
	}
	if m.objects, err = loadObjects(spec, maps); err != nil {
		return false, m.options.explain(err)
	}
	return maps != nil, nil
}

// pinMissing pins the maps that are not pinned yet, before any program writes them.
func (m *Meter) pinMissing() error {
	missing := m.objects.pinned(m.pins())
	for pin := range missing {
		if exists(filepath.Join(m.options.PinPath, pin)) {
			delete(missing, pin)
		}
	}
	return pinMaps(m.options.PinPath, missing)
}

// begin starts with fresh maps.
func (m *Meter) begin() error {
	kernel, err := m.drainer.state.get()
	if err != nil {
		return err
	}
	m.setID, m.newMaps = kernel.SetId, true
	if m.options.Saved() != nil {
		m.rejected = errors.New("there are no maps that it could be about")
	}
	return m.pinMissing()
}

// sweep removes what an earlier agent has left behind under our pin path.
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

// Close publishes what was counted until now and lets go of everything. Programs
// and maps stay and go on counting, for the next meter of this pin path or for
// [Uninstall]. It may be called more than once.
func (m *Meter) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	var errs []error
	for range sets { // the last flip, and the set that it froze
		errs = append(errs, m.Drain(context.Background()))
	}
	m.gate <- struct{}{}
	defer func() { <-m.gate }()
	m.released = true
	for _, r := range m.registries() {
		r.each(func(a *attachment) { errs = append(errs, a.hooks.release()) })
	}
	return errors.Join(append(errs, m.release())...)
}

// release gives back what load acquired, but the pins.
func (m *Meter) release() error {
	var errs []error
	if m.drainer != nil {
		errs = append(errs, m.drainer.release())
	}
	if m.objects != nil {
		errs = append(errs, m.objects.close())
	}
	if m.grace != nil {
		errs = append(errs, m.grace.close())
	}
	if m.lock != nil {
		errs = append(errs, m.lock.release())
	}
	return errors.Join(errs...)
}
