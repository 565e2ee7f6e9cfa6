// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
)

func TestClockTime(t *testing.T) {
	wall := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		name         string
		ticks, stamp uint32
		want         time.Duration
	}{
		{"now", 1000, 1000, 0},
		{"before", 1000, 750, -time.Second},
		{"before the wrap", 50, 1<<32 - 200, -time.Second},
		{"slightly in the future", 1000, 1002, 0},
		{"in the future across the wrap", 1<<32 - 1, 1, 0},
		{"as old as can be", 0, 1 << 31, -(1 << 31) * 4 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := clock{wall: wall, ticks: test.ticks, tick: 4 * time.Millisecond}
			if got := c.time(test.stamp).Sub(wall); got != test.want {
				t.Errorf("got %v after the reading, want %v", got, test.want)
			}
		})
	}
}

// stampSlack is in ticks: a stamp is up to one old, and the CPU that counts them
// can be late.
const stampSlack = 5

// A packet's stamps are the time at which it was sent, within some ticks and the
// time that reading the clock took: that much later it may be set.
func TestStampsAreTheTime(t *testing.T) {
	t.Parallel()
	d, objects := newTestDrainer(t, 4096)
	var got *flows.Record
	keep := sinkFunc(func(epoch *flows.Epoch) error {
		if len(epoch.Records) > 0 {
			got = &epoch.Records[0]
		}
		return nil
	})
	var sentAt [2][2]time.Time
	for i := range sentAt {
		sentAt[i][0] = time.Now()
		send(t, objects, 7)
		sentAt[i][1] = time.Now()
		// Apart by more than what the stamps are allowed to be off.
		time.Sleep(200 * time.Millisecond)
	}
	if err := d.drain(keep); err != nil {
		t.Fatalf("drain: %v", err)
	}
	began := time.Now()
	if err := d.drain(keep); err != nil {
		t.Fatalf("drain: %v", err)
	}
	took := time.Since(began) // reading the clock was part of it
	c, err := readClock(objects.PodmeterClock)
	if err != nil {
		t.Fatalf("read clock: %v", err)
	}
	if got == nil {
		t.Fatal("got no record, want one")
	}
	for i, stamp := range []time.Time{got.First, got.Last} {
		earliest, latest := sentAt[i][0].Add(-stampSlack*c.tick), sentAt[i][1].Add(stampSlack*c.tick+took)
		if stamp.Before(earliest) || stamp.After(latest) {
			t.Errorf("stamp %d: got %v, want %v to %v", i, stamp, earliest, latest)
		}
	}
}
