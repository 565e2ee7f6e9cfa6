// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"
)

func TestHighWater(t *testing.T) {
	type drain struct {
		at, took time.Duration
		inserted uint64 // in a second
	}
	const capacity = 100_000 + 2*strandedPerCPU
	for _, test := range []struct {
		name   string
		drains []drain
		want   uint64
	}{
		{"nothing is known yet", nil, 25_000},
		{"little comes", []drain{{0, 10 * time.Millisecond, 1000}}, 25_000},
		{"what comes must fit above it", []drain{{0, 900 * time.Millisecond, 100_000}}, 10_000},
		{"never so low that drains chase each other", []drain{{0, time.Second, 500_000}}, 6250},
		{"the worst of both counts", []drain{{0, 900 * time.Millisecond, 1000}, {time.Second, time.Millisecond, 100_000}}, 10_000},
		{"for a minute", []drain{{0, 900 * time.Millisecond, 100_000}, {pressureSpan, time.Millisecond, 10}}, 10_000},
		{"and is forgotten after two", []drain{
			{0, 900 * time.Millisecond, 100_000}, {pressureSpan, time.Millisecond, 10}, {2 * pressureSpan, time.Millisecond, 10},
		}, 25_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPressure(capacity, 2)
			for _, d := range test.drains {
				p.observe(time.Unix(1000, 0).Add(d.at), d.took, d.inserted, time.Second)
			}
			if got := p.highWater(); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}
