// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// BenchmarkDrainHealth measures what a drain takes for one end of a connection: to read
// and decode its health, and to clear it.
func BenchmarkDrainHealth(b *testing.B) {
	ktest.Privileged(b)
	const ends = 10_000
	spec, err := bpf.LoadSocket()
	if err != nil {
		b.Fatal(err)
	}
	spec.Maps[bpf.SocketMapHealth0].MaxEntries = DefaultMaxHealth
	m, err := ebpf.NewMap(spec.Maps[bpf.SocketMapHealth0])
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	table := newHealthTable(m)
	var records []flows.HealthRecord
	read, clear := time.Hour, time.Hour
	for b.Loop() {
		for n := range ends {
			key := bpf.SocketHealthKey{Cgroup: uint64(n)}
			if err := m.Put(key, bpf.SocketTcpHealth{Opened: 1}); err != nil {
				b.Fatal(err)
			}
		}
		began := time.Now()
		if records, err = table.read(clock{}, records[:0]); err != nil || len(records) != ends {
			b.Fatalf("got %d, %v, want %d", len(records), err, ends)
		}
		read = min(read, time.Since(began))
		began = time.Now()
		if err := table.clear(); err != nil {
			b.Fatal(err)
		}
		clear = min(clear, time.Since(began))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(read.Nanoseconds())/ends, "read-ns/entry")
	b.ReportMetric(float64(clear.Nanoseconds())/ends, "clear-ns/entry")
}
