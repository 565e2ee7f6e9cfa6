// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// soakWarm is how many samples of an agent's life are not judged: pods come until
	// all are there, and for as long as their grace more of those that went are served.
	soakWarm = 20
	// soakLeast is how many have to be left for a judgement.
	soakLeast = 12
)

// soakQuantity is something that has to stay as it is while as many pods come as
// go. About one pod a second does: of what is left behind once for each, the median
// of an agent's last third has more than that of the first by two thirds of the
// seconds between them, 8 or more.
type soakQuantity struct {
	name string
	of   func(soakSample) float64
	// slack and share of the first value are what it may grow by.
	slack, share float64
}

func soakQuantities() []soakQuantity {
	return []soakQuantity{
		{"file descriptors, without links", func(s soakSample) float64 { return s.fds }, 5, 0},
		{"goroutines", func(s soakSample) float64 { return s.goroutines }, 5, 0},
		{"pinned objects, without links", func(s soakSample) float64 { return s.pins }, 5, 0},
		{"links of TCX", func(s soakSample) float64 { return s.links }, 6, 0},
		{"series for each pod", func(s soakSample) float64 { return s.perPod }, 0, 0.2},
		{"resident memory in MiB", func(s soakSample) float64 { return s.rss }, 12, 0.2},
	}
}

// judgeSoak returns what has grown: within each agent's life, from its first third
// to its last, and from the first agent's life to each later one's.
func judgeSoak(samples []soakSample) (judged int, faults []string) {
	lives := make(map[int][]soakSample)
	last := 0
	for _, s := range samples {
		lives[s.life] = append(lives[s.life], s)
		last = max(last, s.life)
	}
	var first []soakSample
	for number := range last + 1 {
		life := lives[number]
		if len(life) < soakWarm+soakLeast {
			continue
		}
		life = life[soakWarm:]
		judged++
		third := len(life) / 3
		faults = append(faults, grown(fmt.Sprintf("agent %d, last third against first", number), life[:third], life[len(life)-third:])...)
		if first == nil {
			first = life
		}
		faults = append(faults, grown(fmt.Sprintf("agent %d against the first that was judged", number), first, life)...)
	}
	return judged, faults
}

func grown(where string, before, after []soakSample) (faults []string) {
	for _, q := range soakQuantities() {
		was, is := median(before, q.of), median(after, q.of)
		if most := was + q.slack + was*q.share; is > most {
			faults = append(faults, fmt.Sprintf("%s: %s: got %.1f, want at most %.1f", where, q.name, is, most))
		}
	}
	return faults
}

func median(samples []soakSample, of func(soakSample) float64) float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, of(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// What stays passes, and what grows by one for each pod does not, in any of the
// quantities, also when it begins anew with each agent or outlives them.
func TestSoakIsJudged(t *testing.T) {
	world := func(change func(n, inLife int, s *soakSample)) (samples []soakSample) {
		for n := range 160 {
			wave := math.Sin(float64(n)) // as many pods come as go, but not at once
			s := soakSample{at: time.Duration(n) * time.Second, life: n / 40, links: 24 + 2*wave,
				rss: 50 + 2*wave, fds: 40 + 2*wave, goroutines: 30 + wave, pins: 20 + 2*wave, perPod: 26 + wave}
			change(n, n%40, &s)
			samples = append(samples, s)
		}
		return samples
	}
	for _, test := range []struct {
		name   string
		change func(n, inLife int, s *soakSample)
		want   string
	}{
		{"nothing grows", func(int, int, *soakSample) {}, ""},
		{"descriptors", func(_, inLife int, s *soakSample) { s.fds += float64(inLife) }, "file descriptors"},
		{"goroutines", func(_, inLife int, s *soakSample) { s.goroutines += float64(inLife) }, "goroutines"},
		{"pins", func(n, _ int, s *soakSample) { s.pins += float64(n) }, "pinned objects"},
		{"pins, at a restart", func(_, _ int, s *soakSample) { s.pins += 10 * float64(s.life) }, "pinned objects"},
		{"series", func(n, _ int, s *soakSample) { s.perPod += float64(n) }, "series"},
		{"links", func(n, _ int, s *soakSample) { s.links += float64(n) }, "links"},
		{"memory", func(n, _ int, s *soakSample) { s.rss += float64(n) }, "resident memory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			judged, faults := judgeSoak(world(test.change))
			if judged != 4 {
				t.Errorf("judged: got %d lives, want 4", judged)
			}
			if test.want == "" && len(faults) > 0 || test.want != "" && !strings.Contains(strings.Join(faults, "\n"), test.want) {
				t.Errorf("got %q, want %q", faults, test.want)
			}
		})
	}
}
