// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/datapath"
	"golang.org/x/sys/unix"
)

// checkMapMemory refuses maps that are larger than the kernel makes them, or that would
// take the machine's memory: the kernel hands it out until there is none left.
func (a *Agent) checkMapMemory() error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count possible CPUs: %w", err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("read the machine's memory: %w", err)
	}
	return Usage(a.config.mapMemoryFault(cpus, uint64(info.Totalram)*uint64(info.Unit)))
}

// mapMemoryFault is the fault of MapMemory on a machine, nil if it may be tried there.
func (c Config) mapMemoryFault(cpus int, machine uint64) error {
	meters, once := uint64(1), ""
	if len(c.Uplinks) > 0 {
		meters, once = 2, ", and --uplinks take as much again"
	}
	most, why := datapath.MaxMapMemory(cpus), "more entries the kernel does not give a map"
	if half := machine / 2 / meters; half < most {
		most, why = half, "maps may take half of this machine's memory"+once
	}
	if c.MapMemory <= most {
		return nil
	}
	size, rounded := byteSize(c.MapMemory), byteSize(most>>20<<20)
	return NewFault("map-memory", &size, "at most %v is expected: %s; the default is 64Mi", &rounded, why)
}

// withoutRoom says in an error of the kernel which flag asks it for that much memory.
func (c Config) withoutRoom(err error) error {
	if !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.E2BIG) {
		return err
	}
	size := byteSize(cmp.Or(c.MapMemory, datapath.DefaultMapMemory))
	return &Fault{Flag: "map-memory", Value: size.String(), err: err,
		Why: fmt.Sprintf("the kernel has no room for such maps, here or in the memory limit of this container; less is expected, or a higher limit: %v", err)}
}
