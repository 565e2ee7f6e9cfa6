// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/podmeter/podmeter/internal/kubetest"
)

// readyTimeout is how long an agent may take to be ready.
const readyTimeout = 2 * time.Minute

// clusterSizes are the numbers of agents that bytes are multiplied by.
var clusterSizes = []int{100, 1_000, 5_000}

// listen is the agent's address in this network namespace, which is ours.
const listen = "127.0.0.1:9739"

// measure runs one agent, and prints what it took.
func measure(ctx context.Context, w *world, server *kubetest.Server, folder, scope string) error {
	gate, err := kubetest.NewGate(server.Address)
	if err != nil {
		return err
	}
	defer gate.Close()
	kubeconfig, err := server.KubeconfigVia(gate.Address)
	if err != nil {
		return err
	}
	name := func(what string) string { return filepath.Join(folder, scope+"-"+what) }
	arguments := []string{"agent", "--identity", "kubernetes", "--kubeconfig", kubeconfig, "--scope", scope, "--node-name", nodeName(0),
		"--listen", listen, "--socket", name("socket"), "--state-dir", name("state"), "--pin-path", "/sys/fs/bpf/" + scope, "--cni-cache", ""}
	began := time.Now()
	agent, err := kubetest.StartProcess(name("log"), w.agent, append(arguments, strings.Fields(w.arguments)...)...)
	if err != nil {
		return err
	}
	defer agent.Interrupt()
	if err := agent.Await(ctx, readyTimeout, ready); err != nil {
		return err
	}
	started := time.Since(began)
	u, err := read(agent.PID())
	if err != nil {
		return err
	}
	fmt.Printf("scope %s: ready in %.1f s, CPU %.1f s, RSS %.1f MiB (largest %.1f); %.1f MB from the API server\n",
		scope, started.Seconds(), u.cpu.Seconds(), u.rss, u.largest, float64(gate.Received())/1e6)
	return steady(ctx, w, gate, agent.PID(), scope)
}

// steady prints what an agent takes while the cluster changes.
func steady(ctx context.Context, w *world, gate *kubetest.Gate, pid int, scope string) error {
	before, err := read(pid)
	if err != nil {
		return err
	}
	began, received := time.Now(), gate.Received()
	changing, cancel := context.WithTimeout(ctx, w.duration)
	defer cancel()
	changes, err := w.churn(changing)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	after, err := read(pid)
	if err != nil {
		return err
	}
	rate := float64(gate.Received()-received) / seconds
	fmt.Printf("scope %s: at %.1f pod changes/s: CPU %.2f %% of a core, RSS %.1f MiB (largest %.1f)\n",
		scope, float64(changes)/seconds, (after.cpu-before.cpu).Seconds()/seconds*100,
		after.rss, after.largest)
	fmt.Printf("scope %s: %.1f kB/s from the API server", scope, rate/1e3)
	for _, agents := range clusterSizes {
		fmt.Printf("; %d agents: %.1f MB/s", agents, rate*float64(agents)/1e6)
	}
	fmt.Println()
	return nil
}

func ready(ctx context.Context) error { return kubetest.Answers(ctx, "http://"+listen+"/readyz") }

// usage is what a process has taken: memory in MiB.
type usage struct {
	cpu          time.Duration
	rss, largest float64
}

func read(pid int) (u usage, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// proc_pid_stat(5): utime and stime, in hundredths of a second, are the
	// 12th and 13th after the name in brackets.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, field := range fields[11:13] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %g kB", &kilobytes); n == 1 {
			u.rss = kilobytes / 1024
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %g kB", &kilobytes); n == 1 {
			u.largest = kilobytes / 1024
		}
	}
	return u, nil
}
