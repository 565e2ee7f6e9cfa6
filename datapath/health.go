// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
)

// DefaultMaxHealth is how many ends of TCP connections can have something happen to them
// in an epoch where nothing else is asked for.
const DefaultMaxHealth = 65536

// rttInterval is for how long after a sample of a connection's RTT no callback makes
// another.
const rttInterval = 100 * time.Millisecond

// healthMaps are the maps of the health of connections by set, as the collection names
// them.
var healthMaps = [sets]string{bpf.SocketMapHealth0, bpf.SocketMapHealth1}

// healthTable is the map of the health of connections of one set.
type healthTable struct {
	restingMap[bpf.SocketHealthKey, bpf.SocketTcpHealth]
}

func newHealthTable(m *ebpf.Map) *healthTable {
	return &healthTable{newRestingMap[bpf.SocketHealthKey, bpf.SocketTcpHealth](m, 1)}
}

// read appends the health of all ends of connections to records.
func (h *healthTable) read(clock clock, records []flows.HealthRecord) ([]flows.HealthRecord, error) {
	if h == nil {
		return records, nil
	}
	before := len(records)
	err := h.restingMap.read(
		func() { records = records[:before] },
		func(key *bpf.SocketHealthKey, values []bpf.SocketTcpHealth) {
			records = append(records, decodeHealth(key, &values[0], clock))
		})
	return records, err
}

// errMissedHealth is returned when entries were left that the read should have seen.
var errMissedHealth = errors.New("entries of TCP health came after the set was read, and are lost: please report it")

func (h *healthTable) clear() error {
	if h == nil {
		return nil
	}
	missed := 0
	err := h.restingMap.clear(func(*bpf.SocketHealthKey, []bpf.SocketTcpHealth) { missed++ })
	if err == nil && missed > 0 {
		return fmt.Errorf("%w: %d", errMissedHealth, missed)
	}
	return err
}

func decodeHealth(key *bpf.SocketHealthKey, value *bpf.SocketTcpHealth, clock clock) flows.HealthRecord {
	r := flows.HealthRecord{
		Cgroup: key.Cgroup,
		Local:  decodeEnd(key.Socket.Local, key.Socket.LocalPort),
		Peer:   decodeEnd(key.Socket.Peer, key.Socket.PeerPort),
		First:  clock.time(value.First), Last: clock.time(value.Last),
		Opened: value.Opened, RetransmittedSegments: value.Segments, RetransmittedBytes: value.Bytes, RTTSum: value.RttSum,
	}
	for _, n := range value.Failed {
		r.Failed += n
	}
	copy(r.RTT[:], value.Rtt[:])
	return r
}

// addHealth makes the sets drain the health of connections too, whose programs are
// attached by now. The caller drains nothing meanwhile.
func (d *drainer) addHealth(maps [sets]*ebpf.Map) error {
	// These programs can be preempted, and the programs before them may have followed the
	// epoch of other maps: wait for both.
	if err := errors.Join(d.grace.coverPreempted(), d.grace.wait()); err != nil {
		return err
	}
	for n, m := range maps {
		d.sets[n].health = newHealthTable(m)
	}
	if !d.published {
		return nil
	}
	state, err := d.state.get()
	if err != nil {
		return err
	}
	// The frozen set has been published: it is only to be cleared, see takeUp.
	_, err = d.sets[(state.Epoch+1)&1].health.read(clock{}, nil)
	return err
}

// rttTicks is rttInterval in kernel ticks.
func rttTicks() (uint32, error) {
	var tick unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &tick); err != nil {
		return 0, fmt.Errorf("read length of a kernel tick: %w", err)
	}
	return uint32(rttInterval / time.Duration(tick.Nano())), nil
}
