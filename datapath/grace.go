// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// membarrierCmdGlobal is MEMBARRIER_CMD_GLOBAL of linux/membarrier.h: wait for
// an RCU grace period (kernel/sched/membarrier.c calls synchronize_rcu).
const membarrierCmdGlobal = 1

// grace waits until every program that was running when wait was called is
// done. BPF programs run inside RCU read-side sections, so an RCU grace period
// is such a wait; two system calls give one.
type grace struct {
	// inner and outer serve the fallback: updating a map of maps from user
	// space waits for a grace period (kernel/bpf/syscall.c,
	// maybe_wait_bpf_programs).
	inner, outer *ebpf.Map
}

// newGrace tries membarrier(2), which is refused with nohz_full, and prepares
// the fallback where it does not work.
func newGrace() (*grace, error) {
	err := membarrier()
	if err == nil {
		return &grace{}, nil
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return nil, err
	}
	return newMapGrace()
}

// coverPreempted makes wait be one for programs that run with preemption too: with one
// CPU membarrier(2) returns at once, as what runs with BH off cannot be interrupted by it.
func (g *grace) coverPreempted() error {
	if g.outer != nil {
		return nil
	}
	other, err := newMapGrace()
	if err != nil {
		return err
	}
	*g = *other
	return nil
}

func newMapGrace() (*grace, error) {
	innerSpec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner, err := ebpf.NewMap(innerSpec)
	if err != nil {
		return nil, fmt.Errorf("create map for grace periods: %w", err)
	}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: innerSpec,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create map of maps for grace periods: %w", err), inner.Close())
	}
	return &grace{inner: inner, outer: outer}, nil
}

func (g *grace) wait() error {
	if g.outer == nil {
		return membarrier()
	}
	if err := g.outer.Update(uint32(0), g.inner, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("wait for a grace period: %w", err)
	}
	return nil
}

func (g *grace) close() error {
	if g.outer == nil {
		return nil
	}
	return errors.Join(g.outer.Close(), g.inner.Close())
}

func membarrier() error {
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierCmdGlobal, 0, 0)
	if errno != 0 {
		return fmt.Errorf("wait for a grace period with membarrier: %w", errno)
	}
	return nil
}
