// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"golang.org/x/sys/unix"
)

// needed are the capabilities that an agent has to have, by name.
func needed() map[string]int {
	return map[string]int{"CAP_BPF": unix.CAP_BPF, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_PERFMON": unix.CAP_PERFMON}
}

// least is the sandbox of a host's agent without one of the capabilities, none if
// the name is empty.
func (h *host) least(without string) []string {
	var keep []int
	for name, number := range needed() {
		if name != without {
			keep = append(keep, number)
		}
	}
	return []string{sandbox(keep, "/sys/fs/bpf", h.dir)}
}

// Three capabilities and a read-only root are all that an agent needs for its
// whole life, and those that ask or clean up after it need no more.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	for _, attach := range []string{"auto", "netlink"} {
		t.Run(attach, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			flags := h.flags("--attach", attach)
			p := start(t, h.node, h.least(""), flags...)
			before := h.awaitAttached(t, p).Interfaces[0].Before[0]
			checkPrivileges(t, p.Process.Pid, "/sys/fs/bpf", h.dir)
			h.awaitExact(t, p, float64(before.Bytes), 40)
			h.checkServed(t)
			for _, args := range [][]string{{"status", "--socket", h.sock}, {"status", "--ready", "--socket", h.sock}} {
				if s := start(t, h.node, h.least(""), args...); s.end(t) != 0 {
					t.Errorf("%q: got exit code %d, want 0; it said:\n%s", args, s.ProcessState.ExitCode(), &s.output)
				}
			}
			p.terminate(t)
			h.send(t, 30) // counted while no agent runs
			p = start(t, h.node, h.least(""), flags...)
			h.awaitAttached(t, p)
			h.awaitExact(t, p, float64(before.Bytes), 10)
			p.Process.Kill()
			p.end(t)
			h.send(t, 30)
			p = start(t, h.node, h.least(""), flags...)
			h.awaitAttached(t, p)
			h.awaitExact(t, p, float64(before.Bytes), 10)
			p.terminate(t)
			h.checkUninstall(t)
		})
	}
}

// awaitExact sends, and waits until the pod's series are what its interface has
// counted since before.
func (h *host) awaitExact(t *testing.T, p *process, before float64, packets int) {
	t.Helper()
	h.send(t, packets)
	_, all := h.counters(t)
	want := all - before
	status := h.await(t, p, "all is drained and saved", func(s *agent.Status) bool {
		return h.value(t, "podmeter_pod_transmit_bytes_total", "pod", "veth0") >= want
	})
	if status.ConservationErrorBytes != 0 || status.CheckpointProblem != "" {
		t.Errorf("conservation error %d, checkpoint problem %q, want none", status.ConservationErrorBytes, status.CheckpointProblem)
	}
	for _, family := range []string{"podmeter_pod_transmit_bytes_total", "podmeter_flow_transmit_bytes_total"} {
		if got := h.value(t, family, "pod", "veth0"); got != want {
			t.Errorf("%s: got %v, want the interface's %v", family, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(h.dir, "state", "checkpoint")); err != nil {
		t.Errorf("checkpoint: %v", err)
	}
}

// checkPrivileges compares what the kernel says of a process: it has the needed
// capabilities alone, and may write nowhere but in some directories.
func checkPrivileges(t *testing.T, pid int, writable ...string) {
	t.Helper()
	var all uint64
	for _, number := range needed() {
		all |= 1 << number
	}
	want := map[string]string{"CapInh": "0", "CapAmb": "0", "NoNewPrivs": "1"}
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		want[set] = fmt.Sprintf("%x", all)
	}
	status := readProc(t, pid, "status")
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		trimmed := strings.TrimLeft(value, "0")
		if expected, checked := want[name]; checked && max(trimmed, "0") != expected {
			t.Errorf("%s: got %s, want %s", name, value, expected)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not in the process's status: %v", want)
	}
	for line := range strings.Lines(string(readProc(t, pid, "mountinfo"))) {
		fields := strings.Fields(line) // proc_pid_mountinfo(5): the mount point is the fifth
		may := !slices.Contains(strings.Split(fields[5], ","), "ro")
		if may && !slices.Contains(writable, fields[4]) {
			t.Errorf("%s: got it writable, want it read-only", fields[4])
		}
	}
}

func readProc(t *testing.T, pid int, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// checkServed scrapes as Prometheus does, by the configured address.
func (h *host) checkServed(t *testing.T) {
	t.Helper()
	if body := h.scrape(t, "/metrics"); !bytes.Contains(body, []byte("\npodmeter_pod_transmit_bytes_total{")) {
		t.Errorf("metrics: got %d bytes without the pod's series", len(body))
	}
}

// scrape gets a path from where the agent listens by [host.flags].
func (h *host) scrape(t *testing.T, path string) (body []byte) {
	t.Helper()
	err := h.node.Do(func() error { // not by http.Get: it connects on another thread
		conn, err := net.Dial("tcp", "127.0.0.1:9739")
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path); err != nil {
			return err
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if body, err = io.ReadAll(response.Body); err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %s", response.Status)
		}
		return err
	})
	if err != nil {
		t.Errorf("get %s: %v", path, err)
	}
	return body
}

func (h *host) checkUninstall(t *testing.T) {
	t.Helper()
	p := start(t, h.node, h.least(""), "uninstall", "--pin-path", h.pins, "--state-dir", filepath.Join(h.dir, "state"))
	if code := p.end(t); code != 0 {
		t.Errorf("uninstall: got exit code %d, want 0; it said:\n%s", code, &p.output)
	}
	if _, err := os.Stat(h.pins); !os.IsNotExist(err) {
		t.Errorf("pins: got %v, want none", err)
	}
}

// Without one of them an agent does not start, says which it is, and leaves nothing.
func TestEachPrivilegeIsNeeded(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for name := range needed() {
		t.Run(name, func(t *testing.T) {
			p := start(t, h.node, h.least(name), h.flags()...)
			code, said := p.end(t), p.output.String()
			if want := "missing capability: " + name + ";"; code != 1 || !strings.Contains(said, want) {
				t.Errorf("got exit code %d and %q, want 1 and %q in it", code, said, want)
			}
			for _, left := range []string{h.pins, h.sock, filepath.Join(h.dir, "state")} {
				if _, err := os.Stat(left); !os.IsNotExist(err) {
					t.Errorf("%s: got %v, want nothing there", left, err)
				}
			}
		})
	}
}
