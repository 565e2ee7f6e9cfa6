// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup is a cgroup of the v2 hierarchy that lives as long as the test. Threads may
// join it, not only processes.
type Cgroup struct {
	Path string
	// ID is what the kernel calls it by: the inode of its directory.
	ID   uint64
	home string // the cgroup of the test's process
}

// NewCgroup makes a cgroup below that of the test's process.
func NewCgroup(tb testing.TB) *Cgroup {
	tb.Helper()
	Privileged(tb)
	root, err := UnifiedHierarchy()
	if err != nil {
		tb.Fatalf("find the cgroup v2 hierarchy: %v", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		tb.Fatal(err)
	}
	home := ""
	for line := range strings.Lines(string(own)) {
		if v2, is := strings.CutPrefix(line, "0::"); is {
			home = filepath.Join(root, strings.TrimSpace(v2))
		}
	}
	path, err := os.MkdirTemp(home, "podmeter-test-")
	if err != nil {
		tb.Fatalf("make cgroup: %v", err)
	}
	return newCgroup(tb, path, home)
}

// Child makes a cgroup below this one.
func (c *Cgroup) Child(tb testing.TB, name string) *Cgroup {
	tb.Helper()
	path := filepath.Join(c.Path, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		tb.Fatalf("make cgroup: %v", err)
	}
	return newCgroup(tb, path, c.home)
}

func newCgroup(tb testing.TB, path, home string) *Cgroup {
	tb.Helper()
	tb.Cleanup(func() { removeCgroup(tb, path) })
	if err := os.WriteFile(filepath.Join(path, "cgroup.type"), []byte("threaded"), 0); err != nil {
		tb.Fatalf("make %s threaded: %v", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		tb.Fatal(err)
	}
	return &Cgroup{Path: path, ID: info.Sys().(*syscall.Stat_t).Ino, home: home}
}

// removeCgroup waits for threads that end, and removes it.
func removeCgroup(tb testing.TB, path string) {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = os.Remove(path); !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tb.Errorf("remove cgroup: %v", err)
	}
}

// Do runs f on a thread inside the cgroup and a network namespace, and returns its
// error. What f starts on other goroutines is outside.
func (c *Cgroup) Do(ns *Namespace, f func() error) error {
	return ns.Do(func() error {
		if err := enter(c.Path); err != nil {
			return err
		}
		// A thread ends with its goroutine, unless it is the process's first.
		return errors.Join(f(), enter(c.home))
	})
}

func enter(path string) error {
	thread := strconv.Itoa(unix.Gettid())
	if err := os.WriteFile(filepath.Join(path, "cgroup.threads"), []byte(thread), 0); err != nil {
		return fmt.Errorf("enter cgroup: %w", err)
	}
	return nil
}

// UnifiedHierarchy returns where cgroup v2 is mounted.
func UnifiedHierarchy() (string, error) {
	for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return path, nil
		}
	}
	return "", errors.New("it is neither at /sys/fs/cgroup nor at /sys/fs/cgroup/unified")
}
