// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// testTraffic is the demo's traffic in a test world.
func testTraffic(t *testing.T, w *world) *traffic {
	t.Helper()
	tr := newTraffic(newTally())
	t.Cleanup(func() {
		if err := tr.stop(); err != nil {
			t.Error(err)
		}
	})
	if err := tr.serveAll(w); err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestEveryProtocolWorks(t *testing.T) {
	t.Parallel()
	w := testWorld(t)
	tr := testTraffic(t, w)
	tr.startAll(w)
	want := []string{"TCP over IPv4", "TCP over IPv6", "UDP over IPv4", "UDP over IPv6", "ICMP over IPv4", "ICMP over IPv6"}
	ktest.Await(t, "every protocol worked", func() bool {
		tr.tally.mu.Lock()
		defer tr.tally.mu.Unlock()
		for _, over := range want {
			if tr.tally.done[over] == 0 {
				return false
			}
		}
		return true
	})
	if err := tr.stop(); err != nil {
		t.Error(err)
	}
	if len(tr.tally.last) != 0 {
		t.Errorf("got errors %v, want none", tr.tally.last)
	}
	for device, own := range must(w.quiet(t.Context(), w.devices()...))(t) {
		for direction, c := range own {
			if c.Packets == 0 || c.Bytes == 0 {
				t.Errorf("%s %v: got %v, want packets", device, flows.Direction(direction), c)
			}
		}
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestOneExchange compares what one exchange moves with what is known of it.
func TestOneExchange(t *testing.T) {
	t.Parallel()
	w := testWorld(t)
	tr := testTraffic(t, w)
	client, web := w.pods[clientPod().String()], w.pods[webPod(1).String()]
	api := apiPod()
	const reports = 4 * 130 // multicast reports of IPv6 that may come between
	for name, c := range map[string]struct {
		exchange *exchange
		// least and most of what the pod receives in bytes.
		least, most uint64
	}{
		"UDP over IPv4":   {resolve(web.namespace, resolverPod().addresses[0], 0), 14 + 20 + 8 + 118, 14 + 20 + 8 + 118},
		"UDP over IPv6":   {resolve(client.namespace, wellington, 0), 14 + 40 + 8 + 118, 14 + 40 + 8 + 118 + reports},
		"ICMP":            {ping(web.namespace, zurich), 14 + 20 + 8 + 56, 14 + 20 + 8 + 56},
		"ICMPv6":          {ping(client.namespace, api.addresses[1]), 14 + 40 + 8 + 56, 14 + 40 + 8 + 56 + reports},
		"TCP over IPv4":   {get(web.namespace, tokyo, 1<<20, 0), 1 << 20, 2 << 20},
		"TCP over IPv6":   {get(client.namespace, api.addresses[1], 1<<20, 0), 1 << 20, 2 << 20},
		"TCP with a body": {post(web.namespace, nairobi, 1<<20, 0), 100, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			device := client.device()
			if c.exchange.from == web.namespace {
				device = web.device()
			}
			before := must(w.quiet(t.Context(), device))(t)[device][flows.Receive]
			ctx, cancel := context.WithTimeout(t.Context(), answerWithin)
			defer cancel()
			if err := c.exchange.run(ctx, c.exchange); err != nil {
				t.Fatal(err)
			}
			moved := must(w.quiet(t.Context(), device))(t)[device][flows.Receive].Sub(before)
			if moved.Bytes < c.least || moved.Bytes > c.most {
				t.Errorf("got %d bytes to the pod, want %d to %d", moved.Bytes, c.least, c.most)
			}
		})
	}
	tr.cancel()
}

func TestExchangeFails(t *testing.T) {
	t.Parallel()
	w := testWorld(t)
	client := w.pods[clientPod().String()]
	nobody := netip.MustParseAddr("10.244.1.99")
	for _, e := range []*exchange{
		get(client.namespace, zurich, 1, time.Hour), resolve(client.namespace, zurich, time.Hour), ping(client.namespace, nobody),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := e.run(ctx, e); err == nil {
			t.Errorf("%s to %s: got no error, want one: nobody answers there", e.protocol, e.to)
		}
		cancel()
	}
}

func TestTallyNamesWhatNeverWorked(t *testing.T) {
	tally, broken := newTally(), errors.New("no route to host")
	node := &namespace{name: "shop/client"}
	works, fails := get(node, zurich, 1, 0), ping(node, reykjavik)
	tally.add(works, broken)
	tally.add(works, nil)
	tally.add(fails, broken)
	err := tally.err()
	const want = "ICMP over IPv6 never worked: ICMP from shop/client to [2001:db8:1::10]:0: no route to host"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	tally.add(fails, nil)
	if err := tally.err(); err != nil {
		t.Errorf("got %v, want none", err)
	}
}

func TestPodComesAndGoesUnderTraffic(t *testing.T) {
	t.Parallel()
	w := testWorld(t)
	tr := testTraffic(t, w)
	job := must(w.addPod(jobPod()))(t)
	during := newTraffic(tr.tally)
	during.startJob(job)
	ktest.Await(t, "the job has moved something", func() bool {
		tr.tally.mu.Lock()
		defer tr.tally.mu.Unlock()
		return tr.tally.done["TCP over IPv4"] > 1
	})
	if err := during.stop(); err != nil {
		t.Error(err)
	}
	last := must(w.quiet(t.Context(), w.devices()...))(t)
	if own := last[job.device()]; own[flows.Transmit].Bytes <= own[flows.Receive].Bytes {
		t.Errorf("got %v of %s, want it to transmit more than it receives", own, job.device())
	}
	if err := w.removePod(job); err != nil {
		t.Error(err)
	}
	if left := must(w.ledgers())(t); len(left) != len(last)-1 || left[job.device()] != (verify.Pair{}) {
		t.Errorf("got %v, want all but %s", left, job.device())
	}
}

func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	w := testWorld(t)
	tr := testTraffic(t, w)
	tr.startAll(w)
	ktest.Await(t, "TCP has worked", func() bool {
		tr.tally.mu.Lock()
		defer tr.tally.mu.Unlock()
		return tr.tally.done["TCP over IPv4"] > 0
	})
	if err := errors.Join(tr.stop(), w.close()); err != nil {
		t.Error(err)
	}
	ktest.Await(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}
