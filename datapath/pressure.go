// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"math"
	"time"
)

const (
	// strandedPerCPU is how many free entries an LRU may hand out to a CPU that
	// does not use them (kernel/bpf/bpf_lru_list.c, LOCAL_FREE_TARGET).
	strandedPerCPU = 128
	// remembered is how many drains the pressure looks back.
	remembered = 16
	// leastShare of the capacity is what high water never falls below, as a
	// divisor: below it drains would chase each other.
	leastShare = 16
)

// pressure decides how full a set may get before the agent is called early:
// what is left then must hold the flows that come until the flip is done.
type pressure struct {
	capacity uint64 // entries of a set, those that CPUs may strand taken off
	took     [remembered]time.Duration
	rates    [remembered]float64 // new flows per second
	next     int
}

func newPressure(capacity uint32, cpus int) pressure {
	return pressure{capacity: max(uint64(capacity)-min(uint64(capacity), uint64(strandedPerCPU*cpus)), uint64(capacity)/2)}
}

// observe takes note of a drain: how long it took, and how many flows its epoch
// created in which time.
func (p *pressure) observe(took time.Duration, inserted uint64, span time.Duration) {
	p.took[p.next] = took
	p.rates[p.next] = float64(inserted) / max(span.Seconds(), 0.001)
	p.next = (p.next + 1) % remembered
}

// highWater returns the number of insertions at which the agent is called.
func (p *pressure) highWater() uint64 {
	var longest time.Duration
	var rate float64
	for i := range remembered {
		longest, rate = max(longest, p.took[i]), max(rate, p.rates[i])
	}
	coming := uint64(rate * longest.Seconds())
	left := p.capacity - min(p.capacity, coming)
	return max(min(left, p.capacity/2), p.capacity/leastShare, 1)
}

// relievePressure adapts high water to the last drain and looks whether it has
// been passed already: the programs call once only.
func (m *Meter) relievePressure(p *publication, took time.Duration) error {
	m.pressure.observe(took, p.inserted, p.span)
	mark, err := m.setHighWater()
	if err != nil {
		return err
	}
	if p.residue+p.unplaced > 0 {
		m.log.Warn("the maps were too small for the traffic: these bytes are exported as unattributed",
			"residue", p.residue, "unplaced", p.unplaced, "flows", p.inserted,
			"map-memory", m.options.MapMemory, "would-have-held", m.memoryFor(p.inserted))
	}
	written, err := m.drainer.writtenInsertions()
	if err != nil {
		return err
	}
	if written >= mark {
		m.drainEarly()
	}
	return nil
}

// setHighWater tells the programs when to call, and returns what it told.
func (m *Meter) setHighWater() (mark uint64, err error) {
	mark = m.pressure.highWater()
	if m.options.noWakeups {
		mark = math.MaxUint64
	}
	if err := m.objects.HighWater.Set(mark); err != nil {
		return 0, fmt.Errorf("set high water: %w", err)
	}
	return mark, nil
}

// memoryFor returns the map memory in bytes whose sets hold this many flows with
// room to spare.
func (m *Meter) memoryFor(inserted uint64) uint64 {
	return 2 * sets * inserted * entryBytes(m.cpus)
}
