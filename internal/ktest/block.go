// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// BlockOpens makes whoever opens or makes a file in the directory wait, as on a disk that
// hangs, until the end of the test. It skips the test, with a reason, on a kernel that
// cannot (CONFIG_FANOTIFY_ACCESS_PERMISSIONS).
func BlockOpens(tb testing.TB, directory string) {
	tb.Helper()
	Privileged(tb)
	listener, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		tb.Skip("this kernel has no fanotify with permissions")
	}
	if err != nil {
		tb.Fatalf("open fanotify: %v", err)
	}
	tb.Cleanup(func() { unix.Close(listener) }) // which lets all go on
	err = unix.FanotifyMark(listener, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, directory)
	if err != nil {
		tb.Fatalf("block opens in %s: %v", directory, err)
	}
}
