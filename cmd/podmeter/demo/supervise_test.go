// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

// demoProcess is a demo as a user starts it, without a terminal.
type demoProcess struct {
	*exec.Cmd
	token  string
	output *bufio.Reader
	stderr bytes.Buffer
	before remains
}

// startDemo starts a demo whose agent has a fault; a wrapper starts it for us if
// there is one.
func startDemo(t *testing.T, fault string, wrapper ...string) *demoProcess {
	t.Helper()
	ktest.Privileged(t)
	d := &demoProcess{token: t.Name() + "-" + strconv.Itoa(os.Getpid()), before: lookAround(t)}
	command := append(wrapper, must(os.Executable())(t))
	d.Cmd = exec.Command(command[0], command[1:]...)
	d.Env = append(os.Environ(), tokenEnv+"="+d.token, faultEnv+"="+fault)
	d.Stderr = &d.stderr
	d.output = bufio.NewReader(must(d.StdoutPipe())(t))
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range d.processes() {
			unix.Kill(pid, unix.SIGKILL)
		}
	})
	return d
}

// processes are the living processes of the demo, parents before children.
func (d *demoProcess) processes() []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		environ, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		pid, _ := strconv.Atoi(e.Name())
		if err == nil && pid != 0 && bytes.Contains(environ, []byte(tokenEnv+"="+d.token+"\x00")) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// awaitTraffic reads the output until the demo has begun, and returns the
// address of its metrics.
func (d *demoProcess) awaitTraffic(t *testing.T) string {
	t.Helper()
	for {
		line, err := d.output.ReadString('\n')
		if err != nil {
			t.Fatalf("read output until traffic flows: %v; errors: %s", err, &d.stderr)
		}
		if m := regexp.MustCompile(`curl -s (\S+)/metrics`).FindStringSubmatch(line); m != nil {
			return m[1]
		}
	}
}

// end waits for the end of the demo and returns the rest of its output.
func (d *demoProcess) end(t *testing.T) string {
	t.Helper()
	rest, err := io.ReadAll(d.output)
	if err != nil {
		t.Error(err)
	}
	d.Wait() // the exit code is looked at by who cares
	ktest.Await(t, "all processes of the demo have ended", func() bool { return len(d.processes()) == 0 })
	if after := lookAround(t); !after.equal(d.before) {
		t.Errorf("got %+v after the demo, want what there was before: %+v", after, d.before)
	}
	return string(rest)
}

// remains are what a demo could leave behind, besides processes: with the last of
// them all namespaces without a name end. Only what is a demo's own is looked at,
// as tests of other packages run meanwhile.
type remains struct {
	links []string // of the machine's network namespace
	files []string // those of ours that are there
	state int      // mounts where the node has its state
}

func (r remains) equal(o remains) bool {
	return slices.Equal(r.links, o.links) && slices.Equal(r.files, o.files) && r.state == o.state
}

func lookAround(t *testing.T) (r remains) {
	t.Helper()
	for _, e := range must(os.ReadDir("/sys/class/net"))(t) {
		r.links = append(r.links, e.Name())
	}
	for _, path := range []string{pinPath, directory + "/static.yaml", directory + "/agent.sock"} {
		if _, err := os.Lstat(path); err == nil {
			r.files = append(r.files, path)
		}
	}
	mounts := string(must(os.ReadFile("/proc/self/mounts"))(t))
	r.state = strings.Count(mounts, " "+stateMount+" ")
	return r
}

func TestDemo(t *testing.T) {
	t.Parallel()
	d := startDemo(t, "")
	address := d.awaitTraffic(t)
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text := must(io.ReadAll(response.Body))(t)
	response.Body.Close()
	if !bytes.Contains(text, []byte(`pod="web-1"`)) {
		t.Errorf("got metrics %.200s, want those of shop/web-1", text)
	}
	output := d.end(t)
	if !d.ProcessState.Success() {
		t.Errorf("got %v with errors %s, want success", d.ProcessState, &d.stderr)
	}
	for _, want := range []string{
		"pod batch/report-1 deleted", "All equal: ", "on 7 interfaces in both directions",
		"ICMP over IPv6", "TCP over IPv6", "UDP over IPv6",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("got no %q in the output:\n%s", want, output)
		}
	}
	if strings.Contains(output, "\x1b") {
		t.Error("got escape codes, want none without a terminal")
	}
}

func TestDemoFails(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]string{
		faultByte:  "demo: podmeter's numbers are not what they must be:\n  vethf2abd8b6 of shop/api, transmit: kernel minus podmeter is -1 / 0, not 0 / 0",
		faultError: "demo: run the agent: the kernel went away\n",
		faultStart: "demo: start the agent: no such feature\n",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			d := startDemo(t, fault)
			d.end(t)
			first, other, _ := strings.Cut(want, "\n")
			// A slow machine may still be waiting for that when the agent fails.
			said := strings.Replace(d.stderr.String(), "demo: wait until no packet moves: ", "demo: ", 1)
			if code := d.ProcessState.ExitCode(); code != 1 || !strings.HasPrefix(said, first) || !strings.Contains(said, other) {
				t.Errorf("got exit code %d and errors %q, want 1 and %q", code, said, want)
			}
		})
	}
}

// TestDemoIsKilled ends a demo in all ways; startDemo and end compare what there
// was before and after.
func TestDemoIsKilled(t *testing.T) {
	t.Parallel()
	const parent, node = 0, 1 // of processes, without a wrapper
	for name, c := range map[string]struct {
		victim int
		signal unix.Signal
		errors string // what the demo says, if it still can
	}{
		"interrupt of the parent": {parent, unix.SIGINT, "demo: interrupted\n"},
		"end of the parent":       {parent, unix.SIGTERM, "demo: interrupted\n"},
		"kill of the parent":      {parent, unix.SIGKILL, ""},
		"interrupt of the node":   {node, unix.SIGINT, "demo: interrupted\n"},
		"kill of the node":        {node, unix.SIGKILL, "demo: the demo's node ended without a verdict: signal: killed\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startDemo(t, "")
			d.awaitTraffic(t)
			if err := unix.Kill(d.processes()[c.victim], c.signal); err != nil {
				t.Fatal(err)
			}
			d.end(t)
			if got := d.stderr.String(); got != c.errors {
				t.Errorf("got errors %q, want %q", got, c.errors)
			}
		})
	}
}

func TestDemoEndsWithItsParent(t *testing.T) {
	t.Parallel()
	// Two shells, as make and the shell that it runs: the outer one is killed,
	// and the inner one lives on.
	d := startDemo(t, "", "sh", "-c", `sh -c '"$0"; true' "$0"; true`)
	d.awaitTraffic(t)
	if got := len(d.processes()); got != 4 {
		t.Fatalf("got %d processes, want two shells, the demo and its node", got)
	}
	if err := d.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	d.end(t)
	const want = "demo: the process that started the demo is gone\n"
	if got := d.stderr.String(); got != want {
		t.Errorf("got errors %q, want %q", got, want)
	}
}

func TestAllAreKilled(t *testing.T) {
	t.Parallel()
	d := startDemo(t, "")
	d.awaitTraffic(t)
	for _, pid := range d.processes() {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	d.end(t)
}

// TestHangingNode needs endWithin to pass.
func TestHangingNode(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]unix.Signal{
		"with a parent": unix.SIGTERM, "without a parent": unix.SIGKILL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startDemo(t, faultHang)
			d.awaitTraffic(t)
			if err := d.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			d.end(t)
		})
	}
}
