// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// clock turns the programs' stamps, which are the low 32 bits of the kernel's
// tick count, into wall-clock time. Stamps older than 2^31 ticks (24 days at
// 1000 ticks a second) are out of its reach.
type clock struct {
	wall  time.Time
	ticks uint32
	tick  time.Duration
}

// readClock runs the program that reads the clock of the stamps.
func readClock(program *ebpf.Program) (clock, error) {
	ticks, err := program.Run(&ebpf.RunOptions{Data: make([]byte, 14)}) // the least that a run takes
	if err != nil {
		return clock{}, fmt.Errorf("read kernel ticks: %w", err)
	}
	c := clock{wall: time.Now(), ticks: ticks}
	var tick unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &tick); err != nil {
		return clock{}, fmt.Errorf("read length of a kernel tick: %w", err)
	}
	c.tick = time.Duration(tick.Nano())
	return c, nil
}

// time returns when a stamp was made, given that it is not in the future.
func (c clock) time(stamp uint32) time.Time {
	age := c.ticks - stamp
	if age > 1<<31 { // stamped after the clock was read
		return c.wall
	}
	return c.wall.Add(-time.Duration(age) * c.tick)
}
