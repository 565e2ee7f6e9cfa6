// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/ktest"
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
	p := h.measured(b, program, idlePods)
	before := ticks(b, p.Process.Pid)
	time.Sleep(idleTime)
	used := ticks(b, p.Process.Pid) - before
	memory = residentMiB(b, p.Process.Pid)
	h.end(b, p)
	return float64(used) / ticksPerSecond / idleTime.Seconds() * 100, memory
}

// measured starts a program's agent that drains each 5 s, and waits until it meters so many pods.
func (h *host) measured(b *testing.B, program string, pods int) *process {
	b.Helper()
	p := startProgram(b, h.node, program, nil, h.flags("--drain-interval", "5s")...)
	h.await(b, p, "all pods are metered", func(s *agent.Status) bool {
		metered := 0
		for _, i := range s.Interfaces {
			if i.State == "attached" && i.Pod != "" {
				metered++
			}
		}
		return metered == pods
	})
	return p
}

// end ends it with all that it leaves.
func (h *host) end(b *testing.B, p *process) {
	b.Helper()
	p.Process.Kill()
	p.Wait()
	h.uninstall(b)
}

const (
	activeFlows  = 10_000
	activeDrains = 8
)

// BenchmarkActiveFlows reports the CPU time that an agent takes for a drain, all of it, where
// 10,000 flows have a packet each in each of 5 s; with the ratio to that of an earlier one, if
// the environment names it. One iteration is all there is: -benchtime 1x.
func BenchmarkActiveFlows(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	took := active(b, shipped(b))
	b.ReportMetric(float64(took.Microseconds())/1000, "ms-CPU/drain")
	if earlier := os.Getenv(earlierEnv); earlier != "" {
		b.ReportMetric(took.Seconds()/active(b, earlier).Seconds(), "ratio-to-earlier")
	}
}

// active returns the CPU time of a drain.
func active(b *testing.B, program string) time.Duration {
	h := newHost(b)
	injector := h.pod.NewInjector(b, "eth0", false)
	frames := make([][]byte, activeFlows)
	for n := range frames {
		peer := netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})
		frames[n] = ktest.Packet(ktest.Ethernet(unix.ETH_P_IP), ktest.IPv4(netip.MustParseAddr("198.51.100.2"), peer, unix.IPPROTO_UDP),
			ktest.Ports(uint16(1024+n), 53))
	}
	send := func() {
		for left := frames; len(left) > 0; {
			sent, err := injector.Send(left...)
			if err != nil {
				b.Fatal(err)
			}
			left = left[sent:]
		}
	}
	p := h.measured(b, program, 1)
	each := time.NewTicker(5 * time.Second)
	defer each.Stop()
	var before time.Duration
	for drain := range activeDrains + 2 {
		if drain == 2 { // its tables are as large as they get
			before = cpuTime(b, p.Process.Pid)
		}
		send()
		<-each.C
	}
	used := cpuTime(b, p.Process.Pid) - before
	h.end(b, p)
	return used / activeDrains
}

// cpuTime returns what the threads of a process have taken, to the nanosecond.
func cpuTime(tb testing.TB, pid int) (sum time.Duration) {
	tb.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		tb.Fatalf("find threads of %d: %v", pid, err)
	}
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		n, err := strconv.ParseInt(string(bytes.Fields(stat)[0]), 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		sum += time.Duration(n)
	}
	return sum
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
