// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/promtest"
)

const (
	// writtenRows are rows of flows, of two series each: nobody answers.
	writtenRows = 5000
	// writingTime is how long an agent is watched: four samples.
	writingTime = time.Minute
)

// BenchmarkRemoteWrite reports what an agent with 10,000 series of flows takes that writes
// them every 15 s to a current Prometheus, and what more that is than one that does not:
// the share of one core in percent, and resident memory at most in MiB. Nobody scrapes
// either. One iteration is all there is: -benchtime 1x.
func BenchmarkRemoteWrite(b *testing.B) {
	binary := promtest.Current(b)
	cpu, memory := make(map[bool]float64), make(map[bool]float64)
	for _, writes := range []bool{false, true} {
		cpu[writes], memory[writes] = benchmarkWriting(b, binary, writes)
	}
	b.ReportMetric(cpu[true], "%cpu")
	b.ReportMetric(cpu[true]-cpu[false], "%cpu-more")
	b.ReportMetric(memory[true], "MiB-RSS")
	b.ReportMetric(memory[true]-memory[false], "MiB-RSS-more")
	b.ReportMetric(0, "ns/op")
}

// benchmarkWriting watches an agent, and fails if it has not the series or has not written
// them.
func benchmarkWriting(b *testing.B, binary string, writes bool) (cpu, memory float64) {
	h := newHost(b)
	flags := h.flags("--drain-interval", "5s", "--flow-labels", "peer_port", "--flow-series-limit", fmt.Sprint(4*writtenRows), "--node-name", "node-a")
	if writes {
		var s *promtest.Server
		if err := h.node.Do(func() error {
			s = promtest.New(b, binary, "{}", "--web.enable-remote-write-receiver")
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		flags = append(flags, "--remote-write-url", s.URL+"/api/v1/write", "--remote-write-spool", filepath.Join(h.dir, "spool"))
	}
	p := start(b, h.node, nil, flags...)
	h.await(b, p, "the interface is attached", func(s *agent.Status) bool {
		return len(s.Interfaces) == 1 && s.Interfaces[0].State == "attached"
	})
	for port := range writtenRows {
		h.pod.Send(b, net.JoinHostPort("198.51.100.1", fmt.Sprint(1000+port)), 100, 1)
	}
	h.await(b, p, "all rows", func(*agent.Status) bool { return h.value(b, "podmeter_series", "family", "flow") >= writtenRows })
	before := ticks(b, p.Process.Pid)
	for end := time.Now().Add(writingTime); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		memory = max(memory, residentMiB(b, p.Process.Pid))
	}
	cpu = float64(ticks(b, p.Process.Pid)-before) / ticksPerSecond / writingTime.Seconds() * 100
	const requests = "podmeter_remote_write_requests_total"
	if sent := h.value(b, requests, "outcome", "sent"); writes && sent < 4*2*writtenRows/2000 {
		b.Errorf("got %v requests sent, want those of four samples", sent)
	}
	b.Logf("writes %v: %.2f %% of a core, %.1f MiB", writes, cpu, memory)
	return cpu, memory
}
