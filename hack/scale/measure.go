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

// measured is an agent of some build that runs, and its way to the API server.
type measured struct {
	command string
	// name is what is printed of it, own what its files are called, and listen its address in
	// this network namespace, which is ours.
	name, own, listen string

	gate    *kubetest.Gate
	process *kubetest.Process
}

// measure runs one agent, or two of different builds, and prints what it took.
func measure(ctx context.Context, w *world, server *kubetest.Server, folder, scope string) error {
	agents := []*measured{{command: w.agent, name: "scope " + scope, own: scope, listen: "127.0.0.1:9739"}}
	if w.earlier != "" {
		agents = append(agents, &measured{command: w.earlier, name: "scope " + scope + ", earlier build",
			own: scope + "-earlier", listen: "127.0.0.1:9740"})
	}
	for _, m := range agents {
		defer m.close()
		if err := m.start(ctx, w, server, folder, scope); err != nil {
			return err
		}
	}
	return steady(ctx, w, agents)
}

// close ends the agent, if it has been started.
func (m *measured) close() {
	if m.process != nil {
		m.process.Interrupt()
	}
	if m.gate != nil {
		m.gate.Close()
	}
}

// start runs the agent, and prints what it took until it was ready.
func (m *measured) start(ctx context.Context, w *world, server *kubetest.Server, folder, scope string) (err error) {
	if m.gate, err = kubetest.NewGate(server.Address); err != nil {
		return err
	}
	kubeconfig, err := server.KubeconfigVia(m.gate.Address)
	if err != nil {
		return err
	}
	name := func(what string) string { return filepath.Join(folder, m.own+"-"+what) }
	arguments := []string{"agent", "--identity", "kubernetes", "--kubeconfig", kubeconfig, "--scope", scope, "--node-name", nodeName(0),
		"--listen", m.listen, "--socket", name("socket"), "--state-dir", name("state"), "--pin-path", "/sys/fs/bpf/" + m.own, "--cni-cache", ""}
	began := time.Now()
	if m.process, err = kubetest.StartProcess(name("log"), m.command, append(arguments, strings.Fields(w.arguments)...)...); err != nil {
		return err
	}
	if err := m.process.Await(ctx, readyTimeout, m.ready); err != nil {
		return err
	}
	started := time.Since(began)
	u, err := m.read()
	if err != nil {
		return err
	}
	fmt.Printf("%s: ready in %.1f s, CPU %.1f s, RSS %.1f MiB (largest %.1f); %.1f MB from the API server\n",
		m.name, started.Seconds(), u.cpu.Seconds(), u.rss, u.largest, float64(u.received)/1e6)
	return nil
}

func (m *measured) ready(ctx context.Context) error {
	return kubetest.Answers(ctx, "http://"+m.listen+"/readyz")
}

// steady prints what agents take while the cluster changes.
func steady(ctx context.Context, w *world, agents []*measured) error {
	before, err := readAll(agents)
	if err != nil {
		return err
	}
	began := time.Now()
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
	after, err := readAll(agents)
	if err != nil {
		return err
	}
	for i, m := range agents {
		m.print(before[i], after[i], changes, seconds)
	}
	if len(agents) > 1 {
		fmt.Printf("%s, of what the earlier build took: CPU %.2f, RSS %.2f (largest %.2f)\n", agents[0].name,
			float64(after[0].cpu-before[0].cpu)/float64(after[1].cpu-before[1].cpu), after[0].rss/after[1].rss, after[0].largest/after[1].largest)
	}
	return nil
}

// print prints what the agent took in a time.
func (m *measured) print(before, after usage, changes int, seconds float64) {
	used, rate := (after.cpu - before.cpu).Seconds(), float64(after.received-before.received)/seconds
	fmt.Printf("%s: at %.1f pod changes/s: CPU %.2f %% of a core, %.2f ms a change, RSS %.1f MiB (largest %.1f)\n",
		m.name, float64(changes)/seconds, used/seconds*100, used*1e3/float64(changes), after.rss, after.largest)
	fmt.Printf("%s: %.1f kB/s from the API server", m.name, rate/1e3)
	for _, agents := range clusterSizes {
		fmt.Printf("; %d agents: %.1f MB/s", agents, rate*float64(agents)/1e6)
	}
	fmt.Println()
}

// usage is what a process has taken: memory in MiB, and bytes of the API server.
type usage struct {
	cpu          time.Duration
	rss, largest float64
	received     int64
}

func readAll(agents []*measured) (all []usage, err error) {
	for _, m := range agents {
		u, err := m.read()
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

func (m *measured) read() (usage, error) {
	u, err := read(m.process.PID())
	u.received = m.gate.Received()
	return u, err
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
