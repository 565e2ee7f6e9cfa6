// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// book is a sink that adds up totals by interface name.
type book struct {
	mu      sync.Mutex
	totals  map[string]byDirection
	seeded  map[string]byDirection
	routed  map[string]int
	failed  uint64
	residue uint64
}

func newBook() *book {
	return &book{totals: make(map[string]byDirection), seeded: make(map[string]byDirection), routed: make(map[string]int)}
}

func (b *book) Publish(epoch *flows.Epoch) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	names := make(map[flows.Point]string)
	for _, i := range epoch.Interfaces {
		names[i.Point] = i.Name
		b.routed[i.Name] = len(i.Addresses)
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
		PinPath: "/sys/fs/bpf/" + fmt.Sprintf("podmeter-test-%d-%d", os.Getpid(), time.Now().UnixNano()),
		Sink:    sink, DrainInterval: 50 * time.Millisecond, MapMemory: 8 << 20,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		within: host.Do,
	}
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
	t.Cleanup(stop)
	return &testMeter{Meter: m, book: book, stop: stop}
}

// await waits until a condition holds.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", what)
		}
	}
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
	await(t, fmt.Sprintf("%s is %q", name, want), func() bool { return m.state(name) == want })
}

// What was there at the start is counted from the attachment on; what comes
// later is counted whole, the part before its attachment from the ledger.
func TestMeterEqualsTheLedger(t *testing.T) {
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			old := newWire(t)
			sendUDP(t, old.pod, "198.51.100.1:9", 11)
			m := startMeter(t, old.host, func(o *Options) { o.Attach = mode })
			m.awaitState(t, "veth0", StateAttached)
			before := before(m, "veth0")
			if got := before[flows.Transmit].Packets; got < 11 {
				t.Errorf("before the attachment: got %d packets, want at least 11", got)
			}

			young := &wire{host: old.host, pod: ktest.NewNamespace(t)}
			young.index = old.host.Veth(t, "veth1", young.pod, "eth0")
			young.host.Address(t, "veth1", "203.0.113.1/24")
			young.pod.Address(t, "eth0", "203.0.113.2/24")
			m.awaitState(t, "veth1", StateAttached)
			for range 5 {
				sendUDP(t, old.pod, "198.51.100.1:9", 20)
				sendUDP(t, old.host, "203.0.113.2:9", 20)
			}
			wantOld, wantYoung := old.ended(t).sub(before), young.ended(t)
			m.stop()
			if totals, seeded := m.book.of("veth0"); totals != wantOld || seeded != (byDirection{}) {
				t.Errorf("veth0: got %v and %v seeded, want %v and none", totals, seeded, wantOld)
			}
			totals, seeded := m.book.of("veth1")
			for d := range totals {
				totals[d].Add(seeded[d])
			}
			if totals != wantYoung || wantYoung[flows.Receive].Packets < 100 {
				t.Errorf("veth1: got %v, %v of it seeded, want %v", totals, seeded, wantYoung)
			}
			if m.book.failed != 0 {
				t.Errorf("conservation error: got %d, want 0", m.book.failed)
			}
		})
	}
}

// A new interface that had traffic before it could be attached is seeded with it.
func TestSeedIsWhatPassedBeforeTheAttachment(t *testing.T) {
	host := ktest.NewNamespace(t)
	var hold sync.Mutex // while it is held nothing is attached
	m := startMeter(t, host, func(o *Options) {
		o.within = func(f func() error) error {
			hold.Lock()
			defer hold.Unlock()
			return host.Do(f)
		}
	})
	await(t, "first listing", func() bool { return m.LastDrain().Count > 0 })
	hold.Lock()
	w := &wire{host: host, pod: ktest.NewNamespace(t)}
	w.index = host.Veth(t, "veth1", w.pod, "eth0")
	host.Address(t, "veth1", "198.51.100.1/24")
	w.pod.Address(t, "eth0", "198.51.100.2/24")
	sendUDP(t, w.pod, "198.51.100.1:9", 25)
	w.settled(t)
	hold.Unlock()
	m.awaitState(t, "veth1", StateAttached)
	sendUDP(t, w.pod, "198.51.100.1:9", 5)
	want := w.ended(t)
	m.stop()
	totals, seeded := m.book.of("veth1")
	if seeded[flows.Transmit].Packets < 25 {
		t.Errorf("seeded: got %v, want at least the 25 packets before the attachment", seeded)
	}
	for d := range totals {
		totals[d].Add(seeded[d])
	}
	if totals != want {
		t.Errorf("got %v, want %v", totals, want)
	}
}

// A vanished interface's last packets are published, and its ifindex can come
// back as another's.
func TestIfindexComesBack(t *testing.T) {
	w := newWire(t)
	m := startMeter(t, w.host, nil)
	m.awaitState(t, "veth0", StateAttached)
	sendUDP(t, w.pod, "198.51.100.1:9", 30)
	counted := w.ended(t).sub(before(m, "veth0"))
	w.host.DeleteLink(t, "veth0")
	await(t, "veth0 is forgotten", func() bool { return m.state("veth0") == "" })
	if totals, _ := m.book.of("veth0"); totals != counted {
		t.Errorf("veth0: got %v, want %v", totals, counted)
	}
	second := &wire{host: w.host, pod: ktest.NewNamespace(t), index: w.index}
	w.host.VethAt(t, w.index, "veth1", second.pod, "eth0")
	w.host.Address(t, "veth1", "203.0.113.1/24")
	second.pod.Address(t, "eth0", "203.0.113.2/24")
	m.awaitState(t, "veth1", StateAttached)
	sendUDP(t, second.pod, "203.0.113.1:9", 30)
	want := second.ended(t)
	m.stop()
	totals, seeded := m.book.of("veth1")
	for d := range totals {
		totals[d].Add(seeded[d])
	}
	if totals != want {
		t.Errorf("veth1: got %v, want %v", totals, want)
	}
	if m.book.failed != 0 {
		t.Errorf("conservation error: got %d, want 0", m.book.failed)
	}
}

func before(m *testMeter, name string) byDirection {
	for _, i := range m.Interfaces() {
		if i.Name == name {
			return i.Before
		}
	}
	return byDirection{}
}

func TestChoosesInterfaces(t *testing.T) {
	w := newWire(t)
	for _, name := range []string{"cali1", "other1"} {
		w.host.Veth(t, name, ktest.NewNamespace(t), "eth0")
	}
	w.host.VethWithin(t, "local0", "local1")
	for _, test := range []struct {
		globs, want []string
	}{
		{nil, []string{"cali1", "other1", "veth0"}},
		{[]string{"!veth*"}, []string{"cali1", "other1"}},
		{[]string{"cali*", "local*", "!local1"}, []string{"cali1", "local0"}},
		{[]string{"none*"}, nil},
	} {
		t.Run(strings.Join(test.globs, ","), func(t *testing.T) {
			m := startMeter(t, w.host, func(o *Options) { o.Interfaces = test.globs })
			names := func() (names []string) {
				for _, i := range m.Interfaces() {
					names = append(names, i.Name)
				}
				return names
			}
			await(t, "a drain after the first listing", func() bool { return m.LastDrain().Count > 3 })
			if got := names(); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if len(test.want) > 0 {
				return
			}
			w.host.Veth(t, "none9", ktest.NewNamespace(t), "eth0")
			m.awaitState(t, "none9", StateAttached)
		})
	}
}

// Lost link events cost nothing but a listing.
func TestOverrunListsAgain(t *testing.T) {
	host := ktest.NewNamespace(t)
	var hold sync.Mutex
	m := startMeter(t, host, func(o *Options) {
		o.receiveBuffer = 1
		o.within = func(f func() error) error {
			hold.Lock()
			defer hold.Unlock()
			return host.Do(f)
		}
	})
	await(t, "first listing", func() bool { return m.LastDrain().Count > 0 })
	pod := ktest.NewNamespace(t)
	const veths = 60
	hold.Lock()
	for i := range veths {
		host.Veth(t, fmt.Sprint("veth", i), pod, fmt.Sprint("eth", i))
	}
	for i := range veths / 2 {
		host.DeleteLink(t, fmt.Sprint("veth", i))
	}
	hold.Unlock()
	await(t, "exactly the living are attached", func() bool {
		all := m.Interfaces()
		return len(all) == veths/2 && !slices.ContainsFunc(all, func(i InterfaceStatus) bool { return i.State != StateAttached })
	})
}

// At high water the agent drains long before its time.
func TestHighWaterCallsTheAgent(t *testing.T) {
	host := ktest.NewNamespace(t)
	m := startMeter(t, host, func(o *Options) { o.DrainInterval = time.Hour; o.MapMemory = 1 })
	if err := m.drainer.createPoint(testPoint); err != nil {
		t.Fatal(err)
	}
	drains := m.LastDrain().Count
	for port := range m.pressure.highWater() - 1 {
		send(t, m.objects, uint16(port+1))
	}
	if got := m.LastDrain().Count; got != drains {
		t.Fatalf("below high water: got %d drains, want %d", got, drains)
	}
	send(t, m.objects, 0)
	await(t, "a drain", func() bool { return m.LastDrain().Count > drains })
}

func TestLeavesNothingBehind(t *testing.T) {
	w := newWire(t)
	m := startMeter(t, w.host, func(o *Options) { o.Attach = AttachNetlink })
	m.awaitState(t, "veth0", StateAttached)
	if _, err := os.Stat(filepath.Join(m.options.PinPath, "flows_0")); err != nil {
		t.Fatalf("pin of a map: %v", err)
	}
	m.stop()
	if _, err := os.Stat(m.options.PinPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pin path after close: got %v, want it to be gone", err)
	}
	if used, err := clsactOn(w); err != nil || used {
		t.Errorf("clsact after close: got %v, %v, want none", used, err)
	}
}

// What a killed agent left is removed by the next one, and by Uninstall.
func TestRemainsAreRemoved(t *testing.T) {
	w := newWire(t)
	o := testOptions(t, w.host, newBook())
	o.Attach = AttachNetlink
	leave := func() {
		t.Helper()
		m, err := New(t.Context(), o)
		if err != nil {
			t.Fatalf("new meter: %v", err)
		}
		err = w.host.Do(func() error {
			_, _, err := m.attacher.attach(w.index)
			return err
		})
		if err != nil {
			t.Fatalf("attach: %v", err)
		}
		// As a kill does it: the descriptors go, pins and filters stay.
		if err := errors.Join(m.objects.close(), m.lock.directory.Close()); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	m, err := New(t.Context(), o)
	if err != nil {
		t.Fatalf("new meter on remains: %v", err)
	}
	if used, err := clsactOn(w); err != nil || used {
		t.Errorf("filters of the killed agent: got %v, %v, want none", used, err)
	}
	if err := m.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	leave()
	var removed []string
	err = w.host.Do(func() (err error) {
		removed, err = Uninstall(o.PinPath)
		return err
	})
	if err != nil || len(removed) != len(m.objects.pinned())+flows.Directions {
		t.Errorf("uninstall: got %v, %v, want all maps and both filters", removed, err)
	}
	if _, err := os.Stat(o.PinPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pin path after uninstall: got %v, want it to be gone", err)
	}
}

func clsactOn(w *wire) (used bool, err error) {
	err = w.host.Do(func() (err error) {
		used, err = clsactUsed(w.index)
		return err
	})
	return used, err
}

func TestOneAgentForAPinPath(t *testing.T) {
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
	ktest.Privileged(t)
	for _, path := range []string{t.TempDir(), "relative/path", "/proc/podmeter"} {
		if _, err := New(t.Context(), Options{PinPath: path}); !errors.Is(err, ErrPinPath) {
			t.Errorf("%s: got %v, want %v", path, err, ErrPinPath)
		}
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
