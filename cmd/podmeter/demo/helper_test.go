// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// dup is one more descriptor of a namespace.
func dup(t *testing.T, n *namespace) netns.NsHandle {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(n.handle), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return netns.NsHandle(fd)
}
