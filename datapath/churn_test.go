// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
)

// churnWorkers make veths at the same time, each of which has one that lives.
const churnWorkers = 4

// churnVeths is how many there are in all.
func churnVeths() int {
	if effort.Stressed() {
		return 2000
	}
	return 160
}

// Veths come, are renamed, move away and back and go, some with their namespace,
// while events are lost and traffic runs. What is there at the end is attached once,
// nothing else is left, and every byte that could be known is published once.
func TestChurn(t *testing.T) {
	effort.Long(t, "churns for seconds")
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			requireMode(t, mode)
			testChurn(t, mode)
		})
	}
}

func testChurn(t *testing.T, mode AttachMode) {
	w := newWire(t)
	before := resourcesNow(t)
	m := startMeter(t, w.host, func(o *Options) {
		o.Attach, o.receiveBuffer = mode, 1 // of events most are lost
	})
	m.awaitState(t, "veth0", StateAttached)
	unpublished := m.Interfaces()[0].Before
	stop := trickle(t, w.pod)
	t.Cleanup(stop)
	c := &churn{meter: m, host: w.host, away: ktest.NewNode(t), exact: make(map[int]byDirection), atMost: make(map[int]byDirection)}
	c.run(t)
	c.checkLiving(t)
	stop()
	want := w.ended(t).sub(unpublished)
	w.host.DeleteLink(t, "veth0")
	c.deleteLiving(t)
	ktest.Await(t, "all are forgotten", func() bool { return len(m.Interfaces()) == 0 })
	checkEmpty(t, m)
	m.stop()
	if got := m.published("veth0"); got != want {
		t.Errorf("veth0: got %v, want the interface's %v", got, want)
	}
	c.checkPublished(t)
	if pins := pinsIn(t, m.options.PinPath); len(pins) != len(m.pins()) {
		t.Errorf("pins: got %v, want those of the maps alone", pins)
	}
	ktest.Await(t, "no goroutine and no file is left", func() bool { return resourcesNow(t).within(before) })
}

func (c *churn) run(t *testing.T) {
	var workers sync.WaitGroup
	pods := make([][2]*ktest.Namespace, churnWorkers)
	for n := range pods {
		pods[n] = [2]*ktest.Namespace{ktest.NewNode(t), ktest.NewNode(t)}
	}
	for n, pod := range pods {
		workers.Go(func() {
			index := 0 // of the one before, whose ifindex may come back
			for number := n; number < churnVeths(); number += churnWorkers {
				v := &vethLife{number: number, index: index, pod: pod[0]}
				if err := c.live(v); err != nil {
					t.Errorf("veth %d: %v", number, err)
					return
				}
				if index = v.index; rand.IntN(4) > 0 {
					index = 0
				}
			}
			c.vanish(t, n, pod[1])
		})
	}
	workers.Wait()
	t.Logf("stayed, renamed, moved, gone at once: %v", c.ops[:churnGoesWithItsNamespace])
}

// vanish makes veths and closes their namespace at once.
func (c *churn) vanish(t *testing.T, worker int, pod *ktest.Namespace) {
	for n := range 5 {
		v := &vethLife{number: churnVeths() + 5*worker + n, pod: pod}
		if err := c.create(v); err != nil {
			t.Errorf("veth %d: %v", v.number, err)
		}
	}
	if err := pod.Close(); err != nil {
		t.Errorf("close namespace: %v", err)
	}
}

// checkLiving looks at the veths that are still there.
func (c *churn) checkLiving(t *testing.T) {
	t.Helper()
	ktest.Await(t, "exactly the living are attached", func() bool {
		all := c.meter.Interfaces()
		return len(all) == len(c.living)+1 && // and veth0
			!slices.ContainsFunc(all, func(i InterfaceStatus) bool { return i.State != StateAttached })
	})
	for _, v := range c.living {
		w := &wire{host: c.host, index: v.index}
		if got := c.filters(&v) + programsOf(t, w); got != 2 {
			t.Errorf("%s: got %d programs attached, want one for each direction", v.name(), got)
		}
	}
}

// programsOf is how many TCX programs an interface has, 0 where there is no TCX.
func programsOf(t *testing.T, w *wire) int {
	if !ktest.Kernel(t).AtLeast(ktest.LinuxTCX) {
		return 0
	}
	return tcxPrograms(t, w)
}

func (c *churn) deleteLiving(t *testing.T) {
	t.Helper()
	for _, v := range c.living {
		if err := c.end(&v, c.exact); err != nil {
			t.Fatal(err)
		}
	}
}

// checkPublished compares with the counters that the veths ended with.
func (c *churn) checkPublished(t *testing.T) {
	t.Helper()
	for number, want := range c.exact {
		v := vethLife{number: number}
		if got := c.meter.published(v.name(), v.renamed()); got != want {
			t.Errorf("%s: got %v, want the interface's %v", v.name(), got, want)
		}
	}
	for number, most := range c.atMost {
		v := vethLife{number: number}
		if got := c.meter.published(v.name()); !most.covers(got) {
			t.Errorf("%s: got %v, want no more than the interface's %v", v.name(), got, most)
		}
	}
	if c.meter.book.failed != 0 {
		t.Errorf("conservation error: got %d, want 0", c.meter.book.failed)
	}
}

// checkEmpty wants nothing in the maps.
func checkEmpty(t *testing.T, m *testMeter) {
	t.Helper()
	for n, s := range m.drainer.sets {
		ktest.Await(t, "no totals", func() bool {
			totals, err := s.readTotals()
			if err != nil {
				t.Fatal(err)
			}
			return len(totals) == 0
		})
		if len(m.drainer.drained[n]) != 0 {
			t.Errorf("got %d baselines, want none", len(m.drainer.drained[n]))
		}
	}
	r := m.attachments
	ktest.Await(t, "no interface is remembered", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.of) == 0 && len(r.accounted) == 0
	})
}

// resources are what could leak.
type resources struct{ goroutines, files int }

// within reports whether nothing is there beyond what was before; an earlier test's
// may have gone meanwhile.
func (r resources) within(before resources) bool {
	return r.goroutines <= before.goroutines && r.files <= before.files
}

func resourcesNow(t *testing.T) (r resources) {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	r.goroutines = runtime.NumGoroutine()
	for _, file := range files {
		// The test's own namespaces are open until its end.
		if target, _ := os.Readlink("/proc/self/fd/" + file.Name()); !strings.HasPrefix(target, "net:") {
			r.files++
		}
	}
	return r
}
