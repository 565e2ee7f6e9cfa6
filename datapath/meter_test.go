// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/bpf/shallowbuild"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/owned"
)

// book is a sink that adds up totals by interface name.
type book struct {
	mu      sync.Mutex
	totals  map[string]byDirection
	seeded  map[string]byDirection
	failed  uint64
	residue uint64
	health  []flows.HealthRecord
}

func newBook() *book {
	return &book{totals: make(map[string]byDirection), seeded: make(map[string]byDirection)}
}

func (b *book) Publish(epoch *flows.Epoch) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	names := make(map[flows.Point]string)
	for _, i := range epoch.Interfaces {
		names[i.Point] = i.Name
	}
	for _, total := range epoch.Totals {
		name := names[total.Point]
		sum, seeded := b.totals[name], b.seeded[name]
		sum[total.Direction].Add(total.Counters)
		seeded[total.Direction].Add(total.Seeded)
		b.totals[name], b.seeded[name] = sum, seeded
		b.residue += total.Residue.Bytes
	}
	b.failed += epoch.ConservationError
	b.health = append(b.health, epoch.Health...)
	return nil
}

func (b *book) of(name string) (totals, seeded byDirection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.totals[name], b.seeded[name]
}

// testMeter is a running meter in a namespace.
type testMeter struct {
	*Meter
	book *book
	// stop ends Run and closes the meter; it may be called more than once.
	stop func()
}

func testOptions(t testing.TB, host *ktest.Namespace, sink Sink) Options {
	return Options{
		PinPath: ktest.PinPath(t), Sink: sink, DrainInterval: 50 * time.Millisecond, MapMemory: 8 << 20,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		within: host.Do, build: testBuild(),
	}
}

// testBuild is this one; with -short its programs read fewer headers, which takes the
// kernel a tenth of the time to verify.
func testBuild() build {
	b := thisBuild()
	if testing.Short() {
		b.spec = shallowbuild.LoadShallow
	}
	return b
}

func startMeter(t testing.TB, host *ktest.Namespace, change func(*Options)) *testMeter {
	t.Helper()
	book := newBook()
	o := testOptions(t, host, book)
	if change != nil {
		change(&o)
	}
	m, err := New(t.Context(), o)
	if err != nil {
		t.Fatalf("new meter: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := m.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	cleanPins(t, o)
	t.Cleanup(stop)
	return &testMeter{Meter: m, book: book, stop: stop}
}

// cleanPins removes at the end of the test what outlives its meters.
func cleanPins(t testing.TB, o Options) {
	t.Cleanup(func() {
		if _, err := (remains{path: o.PinPath, within: o.within}).remove(); err != nil {
			t.Errorf("uninstall: %v", err)
		}
		if err := remove(o.PinPath); err != nil {
			t.Errorf("remove pin directory: %v", err)
		}
	})
}

func (m *testMeter) state(name string) State {
	for _, i := range m.Interfaces() {
		if i.Name == name {
			return i.State
		}
	}
	return ""
}

func (m *testMeter) awaitState(t testing.TB, name string, want State) {
	t.Helper()
	ktest.Await(t, fmt.Sprintf("%s is %q", name, want), func() bool { return m.state(name) == want })
}

// awaitFirstDrain waits for the drain that waits for no interval.
func (m *testMeter) awaitFirstDrain(t testing.TB) {
	t.Helper()
	ktest.Await(t, "the first drain", func() bool { return m.LastDrain().Count > 0 })
}

// At high water the agent drains long before its time.
func TestHighWaterCallsTheAgent(t *testing.T) {
	t.Parallel()
	host := ktest.NewNamespace(t)
	m := startMeter(t, host, func(o *Options) { o.DrainInterval, o.MapMemory, o.buckets = time.Hour, 1, 1 })
	m.awaitFirstDrain(t)
	if err := m.drainer.createPoint(testPoint); err != nil {
		t.Fatal(err)
	}
	drains := m.LastDrain().Count
	var mark uint64
	if err := m.objects.HighWater.Get(&mark); err != nil {
		t.Fatal(err)
	}
	// All on one CPU, whose front keeps as many flows as it has slots.
	err := ktest.OnCPU(ktest.OnlineCPUs(t)[0], func() error {
		for port := range mark - 1 + uint64(frontWays) {
			if err := sendFrom(m.objects, testPoint, uint16(port+1)); err != nil {
				return err
			}
		}
		if got := m.LastDrain().Count; got != drains {
			return fmt.Errorf("below high water: got %d drains, want %d", got, drains)
		}
		return sendFrom(m.objects, testPoint, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	ktest.Await(t, "a drain", func() bool { return m.LastDrain().Count > drains })
}

// Programs and maps outlive the meter; Uninstall removes all of it.
func TestUninstallLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			w := newWire(t)
			m := startMeter(t, w.host, func(o *Options) { o.Attach = mode })
			m.awaitState(t, "veth0", StateAttached)
			m.stop()
			for pin := range m.flowPins() {
				if _, err := os.Stat(filepath.Join(m.options.PinPath, pin)); err != nil {
					t.Fatalf("pin of a map: %v", err)
				}
			}
			want := len(m.pins()) + flows.Directions
			if mode == AttachNetlink {
				want++ // the qdisc
			}
			var removed []string
			err := w.host.Do(func() (err error) {
				removed, err = Uninstall(m.options.PinPath)
				return err
			})
			if err != nil || len(removed) != want {
				t.Errorf("got %v, %v, want %d things removed", removed, err, want)
			}
			if _, err := os.Stat(m.options.PinPath); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pin path: got %v, want it to be gone", err)
			}
			if used, err := clsactOn(w); err != nil || used {
				t.Errorf("filters: got %v, %v, want none", used, err)
			}
			if mode == AttachTCX { // the kernel ends a link a moment after its last user
				ktest.Await(t, "no TCX program", func() bool { return tcxPrograms(t, w) == 0 })
			}
		})
	}
}

func tcxPrograms(t testing.TB, w *wire) (n int) {
	t.Helper()
	err := w.host.Do(func() error {
		for d := range flows.Direction(flows.Directions) {
			result, err := link.QueryPrograms(link.QueryOptions{Target: w.index, Attach: tcxAttachType(d)})
			if err != nil {
				return err
			}
			n += len(result.Programs)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("query programs: %v", err)
	}
	return n
}

func clsactOn(w *wire) (used bool, err error) {
	err = w.host.Do(func() (err error) {
		filters, err := clsactFilters(w.index)
		used = filters > 0
		return err
	})
	return used, err
}

func TestOneAgentForAPinPath(t *testing.T) {
	t.Parallel()
	host := ktest.NewNamespace(t)
	m := startMeter(t, host, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	o := m.options
	if _, err := New(ctx, o); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("second meter: got %v, want %v naming this process", err, ErrInUse)
	}
	if _, err := Uninstall(o.PinPath); !errors.Is(err, ErrInUse) {
		t.Errorf("uninstall beside a meter: got %v, want %v", err, ErrInUse)
	}
	go func() { m.stop() }()
	second, err := New(t.Context(), o)
	if err != nil {
		t.Fatalf("meter after the first has ended: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestPinPathMustBeBPFFS(t *testing.T) {
	t.Parallel()
	ktest.Privileged(t)
	for _, path := range []string{t.TempDir(), "relative/path", "/proc/podmeter"} {
		if _, err := New(t.Context(), Options{PinPath: path}); !errors.Is(err, ErrPinPath) {
			t.Errorf("%s: got %v, want %v", path, err, ErrPinPath)
		}
	}
}

// Maps in a directory that others can write, or that is another user's, are not gone on with.
func TestPinPathOfOthersIsRefused(t *testing.T) {
	ktest.Privileged(t)
	for name, make := range map[string]func(path string) error{
		"all write it":   func(path string) error { return os.Chmod(path, 0o777) },
		"another user's": func(path string) error { return os.Chown(path, 12345, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			path := testOptions(t, ktest.NewNamespace(t), nil).PinPath
			if err := errors.Join(os.Mkdir(path, 0o700), make(path)); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path)
			if _, err := New(t.Context(), Options{PinPath: path}); !errors.Is(err, ErrPinPath) || !errors.Is(err, owned.ErrForeign) {
				t.Errorf("got %v, want %v and %v", err, ErrPinPath, owned.ErrForeign)
			}
		})
	}
}

func TestOutcomeNamesAreComplete(t *testing.T) {
	seen := make(map[string]bool)
	for outcome := range bpf.MeterOutcomeOUTCOMES {
		name := outcomeNames[outcome]
		if name == "" || seen[name] {
			t.Errorf("outcome %d: got the name %q, want one of its own", outcome, name)
		}
		seen[name] = true
	}
}

// testPins makes a directory for pins that is removed with all in it.
func testPins(t testing.TB) string {
	t.Helper()
	path := ktest.ScratchPins(t)
	if err := preparePinPath(path); err != nil {
		t.Fatal(err)
	}
	return path
}
