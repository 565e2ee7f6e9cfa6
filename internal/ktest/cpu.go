// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// maxCPUs is how many CPUs a unix.CPUSet has room for.
const maxCPUs = 1024

// OnlineCPUs returns the numbers of the CPUs that the test may run on.
func OnlineCPUs(tb testing.TB) (cpus []int) {
	tb.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		tb.Fatalf("get CPU affinity: %v", err)
	}
	for cpu := range maxCPUs {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// OnCPU runs f on a thread that stays on one CPU, and returns its error.
func OnCPU(cpu int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		var set unix.CPUSet
		set.Set(cpu)
		err := unix.SchedSetaffinity(0, &set)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
