// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
)

const (
	idlePods = 100
	// idleTime is how long the idle agent is watched: four drains.
	idleTime = 20 * time.Second
)

// BenchmarkIdleAgent reports what an agent with 100 pods takes when nothing
// happens: resident memory in MiB and the share of one core in percent, scraped
// by nobody. One iteration is all there is: -benchtime 1x.
func BenchmarkIdleAgent(b *testing.B) {
	h := newHost(b)
	for i := range idlePods - 1 {
		h.node.Veth(b, fmt.Sprint("pod", i), h.pod, fmt.Sprint("eth", i+1))
	}
	p := start(b, h.node, nil, h.flags("--drain-interval", "5s")...)
	h.await(b, p, "all pods are metered", func(s *agent.Status) bool {
		metered := 0
		for _, i := range s.Interfaces {
			if i.State == "attached" && i.Pod != "" {
				metered++
			}
		}
		return metered == idlePods
	})
	before := ticks(b, p.Process.Pid)
	time.Sleep(idleTime)
	used := ticks(b, p.Process.Pid) - before
	b.ReportMetric(float64(used)/ticksPerSecond/idleTime.Seconds()*100, "%cpu")
	b.ReportMetric(residentMiB(b, p.Process.Pid), "MiB-RSS")
	b.ReportMetric(0, "ns/op")
}

// ticksPerSecond is USER_HZ, the same on all 64-bit Linux.
const ticksPerSecond = 100

// ticks returns the CPU time of a process, in user and kernel, in USER_HZ.
func ticks(tb testing.TB, pid int) (sum int) {
	tb.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Fatal(err)
	}
	// After the command in parentheses come state and, as the 12th and 13th, the times.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(string(field))
		if err != nil {
			tb.Fatal(err)
		}
		sum += n
	}
	return sum
}

// residentMiB returns a process's resident memory.
func residentMiB(tb testing.TB, pid int) float64 {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kib, err := strconv.Atoi(string(bytes.Fields(value)[0]))
			if err != nil {
				tb.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	tb.Fatal("no VmRSS in the process's status")
	return 0
}
