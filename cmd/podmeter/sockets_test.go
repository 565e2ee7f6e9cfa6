// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// An agent can be reached where it was told to listen and by its unix socket, and
// nowhere else.
func TestListensWhereItIsTold(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		more []string
		want string // as in /proc/net/tcp and tcp6: address and port in hex
	}{
		{"default address", nil, "tcp6 00000000000000000000000000000000:260B"},
		{"one address", []string{"--listen", "127.0.0.1:9739"}, "tcp 0100007F:260B"},
		{"with pprof", []string{"--listen", "127.0.0.1:9739", "--pprof"}, "tcp 0100007F:260B"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			args := append([]string{"agent", "--pin-path", h.pins, "--socket", h.sock, "--drain-interval", "200ms",
				"--state-dir", filepath.Join(h.dir, "state")}, test.more...)
			p := start(t, h.node, nil, args...)
			h.awaitAttached(t, p)
			if slices.Contains(test.more, "--pprof") && len(h.scrape(t, "/debug/pprof/cmdline")) == 0 {
				t.Error("profiles: got nothing")
			}
			if diff := cmp.Diff([]string{test.want, "unix " + h.sock}, listeners(t, p.Process.Pid)); diff != "" {
				t.Errorf("listeners (-want +got):\n%s", diff)
			}
			info, err := os.Stat(h.sock)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("socket: got %v, %v, want mode 0600", info, err)
			}
			p.terminate(t)
		})
	}
}

const unknownSocket = "a socket of no known kind, inode "

// listeners are the sockets by which others reach a process, in order. Sockets
// that nobody can connect or send to are left out: connections and netlink.
//
// A socket is in no table before it is bound and once its connection has ended, so
// that one of no known kind is believed only if it stays.
func listeners(t *testing.T, pid int) (all []string) {
	t.Helper()
	unknown := func(what string) bool { return strings.HasPrefix(what, unknownSocket) }
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if all = listenersAtOnce(t, pid); !slices.ContainsFunc(all, unknown) {
			break
		}
	}
	return all
}

func listenersAtOnce(t *testing.T, pid int) (all []string) {
	t.Helper()
	before := openSockets(t, pid)
	known := socketTable(t, pid)
	for _, inode := range openSockets(t, pid) {
		if !slices.Contains(before, inode) {
			continue // came after the table was read
		}
		what, listed := known[inode]
		if !listed {
			what = unknownSocket + inode
		}
		if what != "" {
			all = append(all, what)
		}
	}
	slices.Sort(all)
	return all
}

// openSockets are the inodes of a process's sockets.
func openSockets(t *testing.T, pid int) (inodes []string) {
	t.Helper()
	directory := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(directory, entry.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if inode, is := strings.CutPrefix(target, "socket:["); is {
			inodes = append(inodes, strings.TrimSuffix(inode, "]"))
		}
	}
	return inodes
}

// socketTable tells, by inode, what the sockets of a process's network namespace
// are, empty for those that take nothing from a stranger.
func socketTable(t *testing.T, pid int) map[string]string {
	t.Helper()
	table := make(map[string]string)
	for _, kind := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "unix", "netlink"} {
		content := string(readProc(t, pid, "net/"+kind))
		for number, line := range strings.Split(strings.TrimSpace(content), "\n") {
			if number > 0 { // the first is the heading
				inode, what := describeSocket(kind, strings.Fields(line))
				table[inode] = what
			}
		}
	}
	return table
}

// describeSocket reads a line of proc_pid_net(5).
func describeSocket(kind string, fields []string) (inode, what string) {
	const listening = "0A" // TCP_LISTEN
	switch kind {
	case "tcp", "tcp6":
		if fields[3] != listening {
			return fields[9], ""
		}
		return fields[9], kind + " " + fields[1]
	case "unix":
		// Flags with __SO_ACCEPTCON; a path stands last.
		if fields[3] != "00010000" {
			return fields[6], ""
		}
		return fields[6], kind + " " + fields[len(fields)-1]
	case "packet":
		return fields[8], kind
	case "netlink":
		return fields[9], ""
	}
	return fields[9], kind + " " + fields[1]
}
