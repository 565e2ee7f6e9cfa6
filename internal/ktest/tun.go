// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Tun makes a device of the namespace without an Ethernet header, up, and returns its file: what
// is written is a packet that the device receives, from the IP header on, and what it transmits
// is read. The device goes with the file, at the end of the test.
func (ns *Namespace) Tun(tb testing.TB, name string) *os.File {
	tb.Helper()
	var file *os.File
	err := ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		file = os.NewFile(uintptr(fd), name) // not before, as a file is polled from here on
		return setUp(name)
	})
	if file != nil {
		tb.Cleanup(func() { file.Close() })
	}
	if err != nil {
		tb.Fatalf("make tun device %s: %v", name, err)
	}
	return file
}
