// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// family are the processes that this one was started for: its parent, and all
// above it in the same process group, so that the end of make is noticed though
// a shell stands between. Each is held by a descriptor, which an id that is used
// again cannot deceive.
type family struct {
	members []*os.File // pidfds
	waiting sync.WaitGroup
}

var errParentGone = errors.New("the process that started the demo is gone")

// watchFamily opens the family. The first process of the system is no member.
func watchFamily() (*family, error) {
	f := &family{}
	group := unix.Getpgrp()
	pid := os.Getppid()
	for direct := true; pid > 1; direct = false {
		if theirs, err := unix.Getpgid(pid); !direct && (err != nil || theirs != group) {
			break
		}
		fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
		if err != nil {
			f.close()
			return nil, fmt.Errorf("watch process %d that started the demo: %w", pid, err)
		}
		f.members = append(f.members, os.NewFile(uintptr(fd), "pidfd"))
		if direct && os.Getppid() != pid {
			f.close()
			return nil, errParentGone
		}
		pid = parentOf(pid)
	}
	return f, nil
}

// parentOf returns the id of a process's parent, 0 if it has none or is gone.
func parentOf(pid int) int {
	file, err := os.Open("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "PPid:"); ok {
			parent, _ := strconv.Atoi(strings.TrimSpace(value))
			return parent
		}
	}
	return 0
}

// whenGone cancels with errParentGone as soon as any member is gone.
func (f *family) whenGone(cancel context.CancelCauseFunc) {
	for _, member := range f.members {
		f.waiting.Go(func() {
			if ended(member) {
				cancel(errParentGone)
			}
		})
	}
}

// ended waits for the end of a process. It reports false if the descriptor was
// closed before.
func ended(pidfd *os.File) bool {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n == 1
		return gone
	})
	return err == nil && gone
}

// close stops watching.
func (f *family) close() {
	for _, member := range f.members {
		member.Close()
	}
	f.waiting.Wait()
}
