// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"testing"

	"github.com/prometheus/procfs"
)

// Backlogs tells when packets that devices had taken earlier have been handled: each CPU has
// then been seen without one that waits for it.
type Backlogs struct{ waits map[uint32]bool }

// Forget begins again.
func (b *Backlogs) Forget() { b.waits = nil }

// Handled looks at what waits now.
func (b *Backlogs) Handled(tb testing.TB) bool {
	tb.Helper()
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		tb.Fatal(err)
	}
	cpus, err := proc.NetSoftnetStat()
	if err != nil {
		tb.Fatalf("read backlogs: %v", err)
	}
	if b.waits == nil {
		b.waits = make(map[uint32]bool)
		for _, cpu := range cpus {
			b.waits[cpu.Index] = true
		}
	}
	for _, cpu := range cpus {
		if cpu.SoftnetBacklogLen == 0 {
			delete(b.waits, cpu.Index)
		}
	}
	return len(b.waits) == 0
}
