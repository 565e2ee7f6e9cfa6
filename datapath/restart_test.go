// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

var errKilled = errors.New("killed")

// archive is a sink with a checkpoint: what a killed agent leaves on disk. It can
// be killed at its next epoch, before the checkpoint is written or after it.
type archive struct {
	*book
	meter *Meter
	// prepare is called before a meter runs; it may be nil.
	prepare func(*Meter) error

	lock          sync.Mutex
	saved         *SavedState
	before, after bool
	afterSeed     bool          // after the checkpoint that has a seed
	dead          chan struct{} // closed when the kill has come
}

func newArchive() *archive { return &archive{book: newBook(), dead: make(chan struct{})} }

func (a *archive) Publish(epoch *flows.Epoch) error {
	a.lock.Lock()
	defer a.lock.Unlock()
	switch {
	case a.isDead():
		return errKilled
	case a.before:
		close(a.dead)
		return errKilled
	}
	a.saved = a.meter.Save(epoch)
	if err := a.book.Publish(epoch); err != nil {
		return err
	}
	if a.after || a.afterSeed && hasSeed(epoch) {
		close(a.dead)
		return errKilled
	}
	return nil
}

func hasSeed(epoch *flows.Epoch) bool {
	return slices.ContainsFunc(epoch.Totals, func(total flows.Total) bool { return !total.Seeded.IsZero() })
}

func (a *archive) isDead() bool {
	select {
	case <-a.dead:
		return true
	default:
		return false
	}
}

// install starts the first meter on a wire, and an archive for those that follow.
// It also returns what passed before the attachment, which is nobody's.
func install(t *testing.T, w *wire, change func(*Options)) (*archive, Options, *life, byDirection) {
	t.Helper()
	a, o := newArchive(), testOptions(t, w.host, nil)
	if change != nil {
		change(&o)
	}
	cleanPins(t, o)
	l := a.start(t, o)
	ktest.Await(t, "veth0 is attached", l.attached(1))
	return a, o, l, l.Interfaces()[0].Before
}

// hasSaved is a condition: there is a checkpoint.
func (a *archive) hasSaved() bool {
	a.lock.Lock()
	defer a.lock.Unlock()
	return a.saved != nil
}

// life is one meter of many on the same pins.
type life struct {
	*Meter
	cancel context.CancelFunc
	done   chan error
}

func (a *archive) start(t *testing.T, o Options) *life {
	t.Helper()
	a.dead, a.before, a.after, a.afterSeed = make(chan struct{}), false, false, false
	o.Sink, o.Saved = a, func() *SavedState { return a.saved }
	m, err := New(t.Context(), o)
	if err != nil {
		t.Fatalf("new meter: %v", err)
	}
	a.meter = m
	if a.prepare != nil {
		if err := a.prepare(m); err != nil {
			t.Fatalf("prepare meter: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{Meter: m, cancel: cancel, done: make(chan error, 1)}
	go func() { l.done <- m.Run(ctx) }()
	return l
}

// kill ends a meter as SIGKILL does: nothing is drained, saved or detached.
func (l *life) kill(t *testing.T) {
	t.Helper()
	l.cancel()
	if err := <-l.done; err != nil {
		t.Errorf("run: %v", err)
	}
	l.closed.Store(true)
	l.attachments.each(func(a *attachment) { a.hooks.release() })
	if err := l.release(); err != nil {
		t.Errorf("release: %v", err)
	}
}

// attached is a condition: so many interfaces, and no more, are attached.
func (l *life) attached(want int) func() bool {
	return func() bool {
		all := l.Interfaces()
		return len(all) == want && !slices.ContainsFunc(all, func(i InterfaceStatus) bool { return i.State != StateAttached })
	}
}

func (l *life) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	if err := errors.Join(<-l.done, l.Close()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// trickle sends to ever other ports until it is stopped.
func trickle(t *testing.T, from *ktest.Namespace) (stop func()) {
	done := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		err := from.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			to := &unix.SockaddrInet4{Addr: netip.MustParseAddr("198.51.100.1").As4()}
			pause := time.NewTicker(200 * time.Microsecond)
			defer pause.Stop()
			for port := 1000; ; port = 1000 + (port+1)%500 {
				select {
				case <-done:
					return nil
				case <-pause.C:
				}
				to.Port = port
				if err := unix.Sendto(fd, make([]byte, 100), 0, to); err != nil && err != unix.ECONNREFUSED {
					return err
				}
			}
		})
		if err != nil {
			t.Errorf("send: %v", err)
		}
	})
	return sync.OnceFunc(func() { close(done); sender.Wait() })
}

// Under traffic the meter is killed again and again: at any moment, before and
// after its checkpoint, and ended in peace. Every byte is published once.
func TestExactlyOnceAcrossKills(t *testing.T) {
	effort.Long(t, "kills a meter 24 times")
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			w := newWire(t)
			a := newArchive()
			o := testOptions(t, w.host, nil)
			o.Attach, o.DrainInterval = mode, 20*time.Millisecond
			cleanPins(t, o)
			l := a.start(t, o)
			ktest.Await(t, "veth0 is attached", l.attached(1))
			ktest.Await(t, "a checkpoint", a.hasSaved)
			unpublished := byDirection(l.Interfaces()[0].Before)
			stop := trickle(t, w.pod)
			defer stop()
			random := rand.New(rand.NewPCG(1, uint64(len(mode))))
			for n := range effort.Lives(24) {
				l = a.next(t, l, o, n%4, random)
			}
			stop()
			want := w.ended(t).sub(unpublished)
			l.stop(t)
			totals, seeded := a.of("veth0")
			if got := totals.add(seeded); !w.agree(t, got, want) || seeded != (byDirection{}) {
				t.Errorf("got %v, %v of it seeded, want the interface's %v", got, seeded, want)
			}
			if a.failed != 0 || a.residue != 0 && !effort.NoRoom() {
				t.Errorf("got a conservation error of %d and a residue of %d, want none", a.failed, a.residue)
			}
		})
	}
}

// next ends a life in one of four ways and starts another.
func (a *archive) next(t *testing.T, l *life, o Options, way int, random *rand.Rand) *life {
	t.Helper()
	time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond) // any moment is meant
	switch way {
	case 0:
		l.stop(t)
	case 1:
		l.kill(t)
	default:
		a.lock.Lock()
		a.before, a.after = way == 2, way == 3
		a.lock.Unlock()
		ktest.Await(t, "the kill", a.isDead)
		l.kill(t)
	}
	next := a.start(t, o)
	if resumed, why := next.Resumed(); !resumed {
		t.Fatalf("after way %d: not resumed: %v", way, why)
	}
	return next
}

// What a state must not be believed for, and what is then published.
func TestStateThatDoesNotFit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*SavedState)
	}{
		{"another boot", func(s *SavedState) { s.BootID = "other" }},
		{"other maps", func(s *SavedState) { s.SetID++ }},
		{"from the future", func(s *SavedState) { s.Epoch += 3 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			a, o, l, unpublished := install(t, w, nil)
			w.pod.Send(t, "198.51.100.1:9", 100, 30)
			l.stop(t)
			test.change(a.saved)
			a.book = newBook() // the counters begin anew
			l = a.start(t, o)
			if resumed, why := l.Resumed(); resumed || why == nil {
				t.Errorf("got resumed %t, %v, want a reason why not", resumed, why)
			}
			ktest.Await(t, "veth0 is attached", l.attached(1))
			w.pod.Send(t, "198.51.100.1:9", 100, 20)
			want := w.ended(t).sub(unpublished)
			l.stop(t)
			totals, _ := a.of("veth0")
			if !w.agree(t, totals, want) { // what the maps hold, all of it
				t.Errorf("got %v, want %v", totals, want)
			}
			if a.failed != 0 {
				t.Errorf("conservation error: got %d, want 0", a.failed)
			}
		})
	}
}

// Epochs that were drained while checkpoints failed are in the totals still, and
// come as residue.
func TestEpochsThatWereNotSaved(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	a, o, l, unpublished := install(t, w, nil)
	w.pod.Send(t, "198.51.100.1:9", 100, 30)
	drainBoth := func() {
		for range 2 {
			if err := l.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	drainBoth()
	saved := a.saved
	totals, _ := a.of("veth0")
	w.pod.Send(t, "198.51.100.1:9", 100, 40)
	drainBoth()
	drainBoth()
	l.kill(t)
	a.saved, a.book = saved, newBook() // as if none of these had been written
	a.book.totals["veth0"] = totals
	l = a.start(t, o)
	want := w.ended(t).sub(unpublished)
	l.stop(t)
	if got, _ := a.of("veth0"); !w.agree(t, got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if a.residue < 40*142 || a.failed != 0 {
		t.Errorf("got a residue of %d bytes and an error of %d, want at least 40 packets of 142 and no error", a.residue, a.failed)
	}
}

// What came, went and changed while no meter ran.
func TestChangesWhileNoMeterRuns(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	gone := wireFrom(t, w.host, beside("veth1", 0))
	a := newArchive()
	o := testOptions(t, w.host, nil)
	cleanPins(t, o)
	l := a.start(t, o)
	ktest.Await(t, "both are attached", l.attached(2))
	unpublished := byDirection(l.Interfaces()[1].Before)
	ktest.Await(t, "a checkpoint", a.hasSaved)
	l.stop(t)
	gone.pod.Send(t, "203.0.113.1:9", 100, 25) // counted while nobody looks
	want := gone.ended(t).sub(unpublished)
	w.host.DeleteLink(t, "veth1")
	young := wireFrom(t, w.host, beside("veth2", gone.index)) // with the index of one that went
	young.pod.Send(t, "203.0.113.1:9", 100, 15)               // counted by nobody but the ledger
	l = a.start(t, o)
	ktest.Await(t, "veth0 and veth2 are attached", l.attached(2))
	young.pod.Send(t, "203.0.113.1:9", 100, 5)
	wantYoung := young.ended(t)
	l.stop(t)
	if totals, seeded := a.of("veth1"); totals.add(seeded) != want {
		t.Errorf("veth1: got %v and %v seeded, want %v", totals, seeded, want)
	}
	if totals, seeded := a.of("veth2"); totals.add(seeded) != wantYoung {
		t.Errorf("veth2: got %v and %v seeded, want %v", totals, seeded, wantYoung)
	}
}

// An interface that had traffic and was attached when the agent was killed, before
// any checkpoint knew of it or with the one that published its seed.
func TestSeedAcrossAKill(t *testing.T) {
	t.Parallel()
	t.Run("before", func(t *testing.T) { testSeedAcrossAKill(t, func(a *archive) { a.before = true }) })
	t.Run("after", func(t *testing.T) { testSeedAcrossAKill(t, func(a *archive) { a.afterSeed = true }) })
}

func testSeedAcrossAKill(t *testing.T, aim func(*archive)) {
	host := ktest.NewNamespace(t)
	a := newArchive()
	o := testOptions(t, host, nil)
	var hold sync.Mutex // while it is held nothing is attached
	o.within = func(f func() error) error {
		hold.Lock()
		defer hold.Unlock()
		return host.Do(f)
	}
	cleanPins(t, o)
	l := a.start(t, o)
	ktest.Await(t, "a checkpoint", a.hasSaved)
	hold.Lock()
	a.lock.Lock()
	aim(a)
	a.lock.Unlock()
	w := wireFrom(t, host, beside("veth1", 0))
	w.pod.Send(t, "203.0.113.1:9", 100, 10)
	w.settled(t)
	hold.Unlock()
	ktest.Await(t, "veth1 is attached", l.attached(1))
	ktest.Await(t, "the kill", a.isDead)
	w.pod.Send(t, "203.0.113.1:9", 100, 20)
	l.kill(t)
	l = a.start(t, o)
	ktest.Await(t, "veth1 is attached again", l.attached(1))
	want := w.ended(t)
	l.stop(t)
	if totals, seeded := a.of("veth1"); totals.add(seeded) != want || seeded[flows.Transmit].Packets < 10 {
		t.Errorf("got %v and %v seeded, want %v", totals, seeded, want)
	}
}
