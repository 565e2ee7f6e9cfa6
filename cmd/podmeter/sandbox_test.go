// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// binary is a built podmeter to run instead of the test binary itself.
	binary = "PODMETER_BINARY"
	// sandboxed is what a process keeps before it becomes podmeter: numbers of
	// capabilities, and behind a semicolon the directories that it may write.
	sandboxed = "PODMETER_TEST_SANDBOX"
)

// sandbox returns the variable that makes a process started by [start] run as a
// container of this host would: as uid 0 with some capabilities alone, with no new
// privileges, and with everything read-only but some directories.
func sandbox(capabilities []int, writable ...string) string {
	numbers := make([]string, len(capabilities))
	for i, number := range capabilities {
		numbers[i] = strconv.Itoa(number)
	}
	return sandboxed + "=" + strings.Join(numbers, ",") + ";" + strings.Join(writable, ",")
}

// prepare makes this process what the variables ask for before it is podmeter. It
// returns when nothing is asked for: what a process gives up is given up by one
// thread, and all others only end when it starts anew.
func prepare() {
	program := os.Getenv(binary)
	limits, limited := os.LookupEnv(sandboxed)
	if program == "" && !limited {
		return
	}
	runtime.LockOSThread()
	err := errors.Join(os.Unsetenv(binary), os.Unsetenv(sandboxed))
	if err == nil && limited {
		err = confine(limits)
	}
	if program == "" {
		program = "/proc/self/exe"
	}
	if err == nil {
		err = unix.Exec(program, os.Args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "become podmeter:", err)
	os.Exit(99)
}

func confine(limits string) error {
	numbers, directories, _ := strings.Cut(limits, ";")
	if err := writeOnly(strings.Split(directories, ",")); err != nil {
		return fmt.Errorf("make all else read-only: %w", err)
	}
	var keep []int
	for _, number := range strings.Split(numbers, ",") {
		n, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		keep = append(keep, n)
	}
	if err := keepCapabilities(keep); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// writeOnly makes every mount read-only but those directories, in a mount
// namespace of this thread's own.
func writeOnly(directories []string) error {
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	for _, directory := range directories {
		if err == nil {
			err = unix.Mount(directory, directory, "", unix.MS_BIND, "")
		}
	}
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err == nil {
		err = unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &readOnly)
	}
	for _, directory := range directories {
		if err == nil {
			err = unix.MountSetattr(unix.AT_FDCWD, directory, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
		}
	}
	return err
}

// keepCapabilities leaves nothing but these in the bounding set: they are what a
// program that uid 0 starts then has.
func keepCapabilities(keep []int) error {
	for number := 0; ; number++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(number), 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // the kernel's last was before
		}
		if slices.Contains(keep, number) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0); err != nil {
			return err
		}
	}
	// What is inheritable would be added to it.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return unix.Capset(&header, &data[0])
}
