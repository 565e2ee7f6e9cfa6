// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// bpffs is where the kernel's BPF file system is mounted, by convention.
const bpffs = "/sys/fs/bpf"

var (
	// ownPins is how all paths begin that [PinPath] and [ScratchPins] return in this process.
	ownPins  = filepath.Join(bpffs, fmt.Sprintf("podmeter-test-%d-%d-", os.Getpid(), time.Now().UnixNano()))
	pinPaths atomic.Uint64
)

func newPinPath(tb testing.TB) string {
	tb.Helper()
	Privileged(tb)
	return fmt.Sprint(ownPins, pinPaths.Add(1))
}

// PinPath returns a path for pins that no other test has and that does not exist. At its
// end the test removes what it pinned there, as an uninstallation does: what is left then
// fails the test, and is removed.
func PinPath(tb testing.TB) string {
	tb.Helper()
	path := newPinPath(tb)
	tb.Cleanup(func() {
		left, err := os.ReadDir(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			tb.Errorf("read pin path: %v", err)
		}
		for _, entry := range left {
			tb.Errorf("pin %s was left", filepath.Join(path, entry.Name()))
		}
		removePins(tb, path)
	})
	return path
}

// ScratchPins is [PinPath] for a test that leaves its pins there: all of it is removed at
// the end of the test.
func ScratchPins(tb testing.TB) string {
	tb.Helper()
	path := newPinPath(tb)
	tb.Cleanup(func() { removePins(tb, path) })
	return path
}

func removePins(tb testing.TB, path string) {
	if err := os.RemoveAll(path); err != nil {
		tb.Errorf("remove pin path: %v", err)
	}
}
