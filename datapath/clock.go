// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"time"

	"golang.org/x/sys/unix"
)

// clockShift turns ns of CLOCK_MONOTONIC_COARSE into the units in which the
// programs stamp packets, about 1.05 ms (bpf/meter.bpf.c, CLOCK_SHIFT).
const clockShift = 20

// clock turns the programs' 32-bit stamps into wall-clock time. Stamps older
// than 2^32 units, 52 days, are out of its reach.
type clock struct {
	wall  time.Time
	ticks uint64
}

func readClock() clock {
	var now unix.Timespec
	// It cannot fail: the clock exists since Linux 2.6.32 and the pointer is valid.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now)
	return clock{wall: time.Now(), ticks: uint64(now.Nano()) >> clockShift}
}

// time returns when a stamp was made, given that it is not in the future.
func (c clock) time(stamp uint32) time.Time {
	age := uint32(c.ticks) - stamp
	if age > 1<<31 { // stamped after the clock was read
		return c.wall
	}
	return c.wall.Add(-time.Duration(uint64(age) << clockShift))
}
