// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"sync"
	"testing"
	"time"
)

// attack is a row of the table in docs/RELIABILITY.md.
type attack struct {
	// name is what the table calls it.
	name string
	// missed is the share of scrapes that may be missed, on a machine whose CPUs the attack
	// shares with the agent and with other tests.
	missed float64
	// refused are the reasons of podmeter_http_refused_total that have to grow: the attack
	// came as far as its bound.
	refused []string
	// run attacks until the context ends.
	run func(context.Context, *testing.T, *world)
	// check is what the row wants besides, after the attack; nil for nothing.
	check func(t *testing.T, w *world, before, after samples)
}

const (
	// maxLines is how much an attack may make the log grow, in lines: ten at once of each of
	// some kinds.
	maxLines = 60
	// memoryLeft is what an attack leaves of the limit, in bytes. Garbage may take the rest, but
	// for what the agent keeps free for probes.
	memoryLeft = 8 << 20
	memoryPace = 50 * time.Millisecond
)

// suffer lets the attacks come one after the other.
func (w *world) suffer(t *testing.T, attacks []attack) {
	t.Helper()
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) { w.judge(t, &a) })
		if t.Failed() {
			w.agent.alive(t) // the others could say no more
		}
	}
}

// judge attacks, and wants what holds in spite of every attack, and what the row says.
func (w *world) judge(t *testing.T, a *attack) {
	t.Helper()
	before, lines := w.last, w.agent.lines(t)
	ctx, cancel := context.WithTimeout(t.Context(), lasts())
	defer cancel()
	var most uint64
	var watching sync.WaitGroup
	watching.Go(func() { most = w.watchMemory(ctx) })
	watching.Go(func() { w.scrapes.attacked(ctx) })
	from := time.Now()
	a.run(ctx, t, w)
	<-ctx.Done() // what comes to its end earlier is judged by as many scrapes
	to := time.Now()
	watching.Wait()

	w.agent.alive(t)
	want, resume := w.talk.quiet()
	defer resume()
	after := w.agent.metrics(t)
	w.last = after
	w.talk.check(t, after, want)
	w.agent.verify(t)
	if a.check != nil {
		a.check(t, w, before, after)
	}
	for _, reason := range a.refused {
		if grown(before, after, "podmeter_http_refused_total", "reason", reason) == 0 {
			t.Errorf("nothing was refused for %s: this was no attack, or the bound does not hold", reason)
		}
	}
	said := w.agent.lines(t) - lines
	if said > maxLines {
		t.Errorf("the log has grown by %d lines, want at most %d; it ends in:\n%s", said, maxLines, w.agent.tail())
	}
	summary := w.scrapes.check(t, from, to, a.missed)
	if limit := w.agent.limit - memoryLeft; most > limit {
		t.Errorf("memory: got %d MiB, want at most %d", most>>20, limit>>20)
	}
	t.Logf("%s; %d MiB of %d; %d lines of log", summary, most>>20, w.agent.limit>>20, said)
}

// watchMemory returns the most that the agent's cgroup has.
func (w *world) watchMemory(ctx context.Context) (most uint64) {
	ticker := time.NewTicker(memoryPace)
	defer ticker.Stop()
	for {
		if used, err := w.agent.memory.Used(); err == nil {
			most = max(most, used)
		}
		select {
		case <-ctx.Done():
			return most
		case <-ticker.C:
		}
	}
}

func grown(before, after samples, name string, labels ...string) float64 {
	return after.sum(name, labels...) - before.sum(name, labels...)
}

// crowd runs f on so many goroutines until they return, which they do when the context ends.
func crowd(ctx context.Context, n int, f func(ctx context.Context, number int)) {
	var all sync.WaitGroup
	for number := range n {
		all.Go(func() { f(ctx, number) })
	}
	all.Wait()
}
