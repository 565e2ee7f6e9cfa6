// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
// by nobody. The agent is built as it is shipped; where the environment names an earlier
// one, that is measured too. One iteration is all there is: -benchtime 1x.
func BenchmarkIdleAgent(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	cpu, memory := idle(b, shipped(b))
	b.ReportMetric(cpu, "%cpu")
	b.ReportMetric(memory, "MiB-RSS")
	if earlier := os.Getenv(earlierEnv); earlier != "" {
		_, before := idle(b, earlier)
		b.ReportMetric(memory/before, "RSS-ratio-to-earlier")
	}
}

// shipped builds podmeter as the image has it.
func shipped(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "podmeter")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build podmeter: %v\n%s", err, said)
	}
	return path
}

// idle returns the share of a core in percent and the resident memory in MiB of a program's
// agent.
func idle(b *testing.B, program string) (cpu, memory float64) {
	h := newHost(b)
	for i := range idlePods - 1 {
		h.node.Veth(b, fmt.Sprint("pod", i), h.pod, fmt.Sprint("eth", i+1))
	}
	p := startProgram(b, h.node, program, nil, h.flags("--drain-interval", "5s")...)
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
	memory = residentMiB(b, p.Process.Pid)
	p.Process.Kill()
	p.Wait()
	h.uninstall(b)
	return float64(used) / ticksPerSecond / idleTime.Seconds() * 100, memory
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
