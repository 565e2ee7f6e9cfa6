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
	// pressureSpan is how long the worst drain is remembered: once to twice.
	pressureSpan = time.Minute
	// High water is at most one mostShare-th of the capacity and at least one
	// leastShare-th. At more, the drain of the other set, which comes before the
	// flip, took too long at 200,000 new flows a second; at less, drains would
	// chase each other.
	mostShare, leastShare = 4, 16
)

// pressure decides how full a set may get before the agent is called early:
// what is left then must hold the flows that come until the flip is done.
type pressure struct {
	capacity uint64 // entries of a set, those that CPUs may strand taken off
	// now and before are the worst of this span and the one before it.
	now, before worst
	turned      time.Time
}

// worst is the longest drain and the highest rate of new flows per second.
type worst struct {
	took time.Duration
	rate float64
}

func newPressure(capacity uint32, cpus int) pressure {
	stranded := min(uint64(capacity)/2, uint64(strandedPerCPU*cpus))
	return pressure{capacity: uint64(capacity) - stranded}
}

// observe takes note of a drain at a time: how long it took, and how many flows
// its epoch created in which time.
func (p *pressure) observe(at time.Time, took time.Duration, inserted uint64, span time.Duration) {
	if at.Sub(p.turned) >= pressureSpan {
		p.now, p.before, p.turned = worst{}, p.now, at
	}
	p.now.took = max(p.now.took, took)
	p.now.rate = max(p.now.rate, float64(inserted)/max(span.Seconds(), 0.001))
}

// highWater returns the number of insertions at which the agent is called.
func (p *pressure) highWater() uint64 {
	coming := uint64(max(p.now.rate, p.before.rate) * max(p.now.took, p.before.took).Seconds())
	left := p.capacity - min(p.capacity, coming)
	return max(min(left, p.capacity/mostShare), p.capacity/leastShare, 1)
}

// relievePressure adapts high water to the last drain and looks whether it has
// been passed already: the programs call once only.
func (m *Meter) relievePressure(p *publication, took time.Duration) error {
	m.pressure.observe(time.Now(), took, p.inserted, p.span)
	mark, err := m.setHighWater()
	if err != nil {
		return err
	}
	if p.residue+p.unplaced > 0 && !p.unsaved {
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
	return memoryOf(2*inserted, m.cpus)
}
