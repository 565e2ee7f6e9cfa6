// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/podmeter/podmeter/internal/effort"
)

// life is a pod that truly has an address from one second until another.
type life struct {
	pod      *Pod
	from, to float64
}

// event is what happens at a time.
type event struct {
	at float64
	do func()
}

// history makes pods of some nodes that have one address one after the other, and the
// events by which the API tells of them: late, in whole seconds, and in several ways.
// Between several nodes an address is free when the API knows that a pod is deleted.
func history(random *rand.Rand, c *Cache, nodes ...string) (lives []life, events []event) {
	until := func(n float64) float64 { return random.Float64() * n }
	now := 0.0
	for i := range 6 {
		from := now + until(20)
		to := from + 2 + until(40)
		if len(nodes) > 1 {
			to = max(to, from+3) // it is told of before it ends
		}
		p := pod(fmt.Sprint("p", i), math.Floor(from-until(2)), "10.0.0.1")
		p.Node = nodes[random.IntN(len(nodes))]
		lives = append(lives, life{p, from, to})
		events = append(events, event{from + until(3), func() { c.SetPod(p) }})
		done := ended(p, math.Floor(to))
		told := max(to+until(3), from+3)
		switch random.IntN(3) {
		case 0: // deleted, after its containers ended
			events = append(events, event{told, func() { c.DeletePod(done) }})
		case 1: // completed, deleted later
			events = append(events, event{told, func() { c.SetPod(done) }}, event{told + until(60), func() { c.DeletePod(done) }})
		case 2: // deleted by force
			if len(nodes) > 1 {
				told = to
			}
			events = append(events, event{told, func() { c.DeletePod(p) }})
		}
		now = to
	}
	return lives, events
}

// ask checks the answers that a binder would get of a life's interface while
// the cache knows what it knows then.
func (l life) ask(t *testing.T, c *Cache, random *rand.Rand, bound *int) event {
	when := l.from + 5 + random.Float64()*60
	last := min(when, l.to+random.Float64())
	return event{when, func() {
		got := c.LocalPod(l.pod.Addresses[0], at(l.from), at(last))
		if got != nil {
			*bound++
		}
		if got != nil && got.UID != l.pod.UID {
			t.Errorf("interface of %s from %.2f to %.2f: got %s", l.pod.Name, l.from, last, got.Name)
		}
	}}
}

func TestNeverTheWrongPod(t *testing.T) {
	t.Run("one node", func(t *testing.T) { checkHistories(t, 80, "here") })
	t.Run("several nodes", func(t *testing.T) { checkHistories(t, 70, "here", "n1", "n2") })
}

// checkHistories wants no wrong answer, and at least some percent of interfaces bound.
func checkHistories(t *testing.T, percent int, nodes ...string) {
	asked, bound := 0, 0
	for seed := range effort.Choose(2000, uint64(200)) {
		random := rand.New(rand.NewPCG(seed, 0))
		k := &clock{start}
		c := newTestCache(k)
		lives, events := history(random, c, nodes...)
		for _, l := range lives {
			if l.pod.Node != "here" {
				continue
			}
			events = append(events, l.ask(t, c, random, &bound))
			asked++
		}
		slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
		for _, e := range events {
			k.Time = at(e.at)
			e.do()
		}
		checkOwners(t, c, lives, random)
		if t.Failed() {
			t.Fatal("with seed ", seed)
		}
	}
	if bound < asked*percent/100 {
		t.Errorf("got %d of %d interfaces bound, want at least %d %%", bound, asked, percent)
	}
}

// checkOwners asks for random times and compares with who truly had the address.
func checkOwners(t *testing.T, c *Cache, lives []life, random *rand.Rand) {
	for range 100 {
		first := random.Float64() * lives[len(lives)-1].to
		last := first + random.Float64()*random.Float64()*30
		got := c.Owner(query("10.0.0.1", first, last))
		for _, l := range lives {
			if first < l.to && last >= l.from && got.Pod != "" && got.Pod != l.pod.Name {
				t.Errorf("%.2f to %.2f: got %s, but %s had it from %.2f to %.2f", first, last, got.Pod, l.pod.Name, l.from, l.to)
			}
			if first >= l.from+3 && last <= l.to-3 && got.Pod != l.pod.Name {
				t.Errorf("%.2f to %.2f: got %s, want %s, which had it from %.2f to %.2f", first, last, says(got), l.pod.Name, l.from, l.to)
			}
		}
	}
}
