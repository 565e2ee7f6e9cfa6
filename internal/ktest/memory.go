// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// MemoryCgroup limits the memory of the processes in it, and lives as long as the test. It is
// of the v2 hierarchy, or of v1 where the machine has its memory controller there: both
// charge processes, BPF maps and page cache, but v1 no buffers of sockets.
type MemoryCgroup struct {
	path string
	v1   bool
}

// memoryRoots are where the controller may be, by convention, and whether that is v1.
var memoryRoots = []struct {
	path string
	v1   bool
}{{"/sys/fs/cgroup", false}, {"/sys/fs/cgroup/unified", false}, {"/sys/fs/cgroup/memory", true}}

// NewMemoryCgroup makes one with a limit in bytes. It skips the test, with a reason, where
// there is no memory controller; under REQUIRE_KERNEL=1 it fails it instead.
func NewMemoryCgroup(tb testing.TB, limit uint64) *MemoryCgroup {
	tb.Helper()
	Privileged(tb)
	var reasons []error
	for _, root := range memoryRoots {
		c, err := newMemoryCgroup(root.path, root.v1, limit)
		if err == nil {
			tb.Cleanup(func() { removeCgroup(tb, c.path) })
			return c
		}
		reasons = append(reasons, err)
	}
	reason := fmt.Sprint("the kernel makes no memory cgroup here: ", errors.Join(reasons...))
	if os.Getenv(RequireEnv) == "1" {
		tb.Fatal(reason)
	}
	tb.Skip(strings.ReplaceAll(reason, "\n", "; "))
	return nil
}

func newMemoryCgroup(root string, v1 bool, limit uint64) (*MemoryCgroup, error) {
	kind, file := int64(unix.CGROUP2_SUPER_MAGIC), "memory.max"
	if v1 {
		kind, file = unix.CGROUP_SUPER_MAGIC, "memory.limit_in_bytes"
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil || fs.Type != kind {
		return nil, errors.Join(fmt.Errorf("%s is no such hierarchy", root), err)
	}
	if !v1 {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			return nil, err
		}
	}
	path, err := os.MkdirTemp(root, "podmeter-test-")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(path, file), strconv.AppendUint(nil, limit, 10), 0); err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return &MemoryCgroup{path, v1}, nil
}

// Command returns a command line that runs another one in the cgroup, as the same process.
func (c *MemoryCgroup) Command(program string, args ...string) []string {
	return append([]string{"/bin/sh", "-c", `echo 0 >"$0" && exec "$@"`, filepath.Join(c.path, "cgroup.procs"), program}, args...)
}

// Used returns the bytes that are charged now.
func (c *MemoryCgroup) Used() (uint64, error) {
	file := "memory.current"
	if c.v1 {
		file = "memory.usage_in_bytes"
	}
	text, err := os.ReadFile(filepath.Join(c.path, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// Killed returns how many processes the limit has killed.
func (c *MemoryCgroup) Killed() (uint64, error) {
	file := "memory.events"
	if c.v1 {
		file = "memory.oom_control"
	}
	text, err := os.ReadFile(filepath.Join(c.path, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if number, is := strings.CutPrefix(line, "oom_kill "); is {
			return strconv.ParseUint(strings.TrimSpace(number), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no oom_kill", file)
}
