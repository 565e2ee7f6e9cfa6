// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Version is a version of Linux.
type Version struct{ Major, Minor int }

// Versions of Linux that tests ask about, by what they brought.
var (
	LinuxTCX = Version{6, 6}
	// LinuxRedirects counts at the other end of a veth what is redirected to it.
	LinuxRedirects = Version{6, 7}
)

// String is the version as kernels are called by it.
func (v Version) String() string { return fmt.Sprintf("Linux %d.%d", v.Major, v.Minor) }

// AtLeast reports whether the version is the other one or later.
func (v Version) AtLeast(other Version) bool {
	return v.Major > other.Major || v.Major == other.Major && v.Minor >= other.Minor
}

// Kernel returns the running kernel's version.
func Kernel(tb testing.TB) Version {
	tb.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		tb.Fatalf("read kernel version: %v", err)
	}
	v, err := parseVersion(unix.ByteSliceToString(name.Release[:]))
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func parseVersion(release string) (v Version, err error) {
	if _, err := fmt.Sscanf(release, "%d.%d", &v.Major, &v.Minor); err != nil {
		return v, fmt.Errorf("read kernel version %q: %w", release, err)
	}
	return v, nil
}

// Lacks ends a test that found its kernel without something: the test is skipped, also
// under REQUIRE_KERNEL=1, and fails on a kernel that is new enough to have it.
func Lacks(tb testing.TB, what string, since Version) {
	tb.Helper()
	if v := Kernel(tb); v.AtLeast(since) {
		tb.Fatalf("no %s on %s, and kernels have it since %s", what, v, since)
	}
	tb.Skipf("kernel without %s (%s)", what, since)
}
