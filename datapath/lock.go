// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse is returned when another agent holds the pin path.
var ErrInUse = errors.New("another agent uses this pin path")

const lockPoll = 200 * time.Millisecond

// pathLock is the exclusive use of a pin path: a lock on its directory, which
// the kernel lets go of with the process.
type pathLock struct {
	directory *os.File
	path      string
}

// lockPath makes the pin directory and locks it. It waits while another process
// holds it.
func lockPath(ctx context.Context, path string, wait time.Duration, log *slog.Logger) (*pathLock, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	ticker := time.NewTicker(lockPoll)
	defer ticker.Stop()
	for told := false; ; {
		l, err := tryLock(path)
		if !errors.Is(err, ErrInUse) {
			return l, err
		}
		if !told {
			log.Warn("waiting for another agent to end", "error", err, "at-most", wait)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-ticker.C:
		}
	}
}

// tryLock makes the pin directory and locks it; ErrInUse if another holds it.
func tryLock(path string) (*pathLock, error) {
	if err := preparePinPath(path); err != nil {
		return nil, err
	}
	l, err := openLock(path)
	if err != nil {
		return nil, err
	}
	if err := l.try(); err != nil {
		return nil, errors.Join(err, l.directory.Close())
	}
	return l, nil
}

func openLock(path string) (*pathLock, error) {
	directory, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open pin directory: %w", err)
	}
	return &pathLock{directory: directory, path: path}, nil
}

// try takes the lock if it is free; ErrInUse if it is not.
func (l *pathLock) try() error {
	err := unix.Flock(int(l.directory.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w: %s is held by %s; stop it, or choose another --pin-path", ErrInUse, l.path, l.holder())
	}
	if err != nil {
		return fmt.Errorf("lock pin directory %s: %w", l.path, err)
	}
	// Who held it may have removed the directory as the last thing it did.
	ours, err := l.directory.Stat()
	if err != nil {
		return fmt.Errorf("look at pin directory: %w", err)
	}
	now, err := os.Stat(l.path)
	if err != nil || !os.SameFile(ours, now) {
		return fmt.Errorf("%w: %s was just removed by another", ErrInUse, l.path)
	}
	return nil
}

// holder names the process that holds the lock, as /proc/locks has it.
func (l *pathLock) holder() string {
	const unknown = "a process of another pid namespace"
	var stat unix.Stat_t
	if err := unix.Fstat(int(l.directory.Fd()), &stat); err != nil {
		return unknown
	}
	file, err := os.Open("/proc/locks")
	if err != nil {
		return unknown
	}
	defer file.Close()
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text()) // 1: FLOCK ADVISORY WRITE pid dev:inode 0 EOF
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[5] != inode {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 {
			return fmt.Sprintf("process %d (%s)", pid, command(pid))
		}
	}
	return unknown
}

func command(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "ended meanwhile"
	}
	return strings.TrimSpace(string(name))
}

// release removes the directory if nothing is in it, and lets go of it. It stays if
// somebody else's pins are in it, and if it is one of the host that is mounted into a
// container, whose root is mostly read-only.
func (l *pathLock) release() error {
	err := remove(l.path)
	for _, stays := range []error{unix.ENOTEMPTY, unix.EBUSY, unix.EROFS} {
		if errors.Is(err, stays) {
			err = nil
		}
	}
	return errors.Join(err, l.directory.Close())
}
