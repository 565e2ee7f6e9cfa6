// SPDX-License-Identifier: Apache-2.0

// Package regular reads files that somebody named, and refuses what would never end or
// never begin: pipes, devices, sockets, directories, files larger than what they can hold.
// A symbolic link to a regular file is one, as Kubernetes mounts ConfigMaps and Secrets.
//
// Nothing here waits for another process.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// ConfigLimit bounds configuration, keys and certificates, in bytes: what a ConfigMap or a
// Secret can hold.
const ConfigLimit = 1 << 20

// Errors that keep a file from being read. They are wrapped in a [fs.PathError].
var (
	ErrNotRegular = errors.New("a regular file is expected")
	ErrTooLarge   = errors.New("it is too large")
)

// Open opens a regular file of at most limit bytes. The second value says what it is, also
// of one that is refused; nil if nothing is there.
func Open(path string, limit int64) (*os.File, fs.FileInfo, error) {
	return open(path, limit, os.Stat, 0)
}

// open opens a file; stat looks at it before, as that alone may have an effect on a device.
func open(path string, limit int64, stat func(string) (fs.FileInfo, error), flags int) (*os.File, fs.FileInfo, error) {
	info, err := stat(path)
	var known *fs.PathError
	switch {
	case errors.As(err, &known):
		return nil, nil, &fs.PathError{Op: "open", Path: path, Err: known.Err}
	case err != nil:
		return nil, nil, err
	}
	if err := check(path, info, limit); err != nil {
		return nil, info, err
	}
	// A pipe that has come in between is opened without waiting for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, nil, err
	}
	if info, err = file.Stat(); err == nil {
		err = check(path, info, limit)
	}
	if err != nil {
		return nil, info, errors.Join(err, file.Close())
	}
	return file, info, nil
}

// Check says why a file would not be read, nil if it would.
func Check(path string, limit int64) error {
	file, _, err := Open(path, limit)
	if err != nil {
		return err
	}
	return file.Close()
}

// Read reads a regular file of at most limit bytes.
func Read(path string, limit int64) ([]byte, error) {
	file, info, err := Open(path, limit)
	if err != nil {
		return nil, err
	}
	return read(file, info, limit)
}

// ReadUnlinked is Read of a path that is no symbolic link itself. It also returns what is
// there, if anything is, so that one that is refused need not be read again.
func ReadUnlinked(path string, limit int64) ([]byte, fs.FileInfo, error) {
	file, info, err := open(path, limit, os.Lstat, unix.O_NOFOLLOW)
	if err != nil {
		return nil, info, err
	}
	content, err := read(file, info, limit)
	return content, info, err
}

// read reads a file that was opened, and closes it.
func read(file *os.File, info fs.FileInfo, limit int64) ([]byte, error) {
	path := file.Name()
	defer file.Close() // of a read: nothing to lose
	// Some of /proc and tracefs call themselves regular and empty, and block or never end.
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	content, err := io.ReadAll(io.LimitReader(nonblocking{raw}, limit+1))
	switch {
	case err != nil:
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	case int64(len(content)) > limit:
		return nil, &fs.PathError{Op: "read", Path: path, Err: tooLarge(max(info.Size(), limit+1), limit)}
	}
	return content, nil
}

// nonblocking reads a file that was opened with O_NONBLOCK: what would block is an error, as
// [os.File] would wait.
type nonblocking struct{ syscall.RawConn }

// Read implements [io.Reader].
func (r nonblocking) Read(b []byte) (n int, err error) {
	controlErr := r.Control(func(descriptor uintptr) {
		for {
			if n, err = unix.Read(int(descriptor), b); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	switch err = errors.Join(controlErr, err); {
	case errors.Is(err, unix.EAGAIN):
		return 0, fmt.Errorf("%w: what is to be read is not there yet", ErrNotRegular)
	case err != nil:
		return 0, err
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

func check(path string, info fs.FileInfo, limit int64) error {
	what := ""
	switch mode := info.Mode(); {
	case mode.IsRegular() && info.Size() > limit:
		return &fs.PathError{Op: "open", Path: path, Err: tooLarge(info.Size(), limit)}
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		what = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		what = "a pipe"
	case mode&fs.ModeSocket != 0:
		what = "a socket"
	case mode&fs.ModeDevice != 0:
		what = "a device"
	case mode&fs.ModeSymlink != 0:
		what = "a symbolic link"
	default:
		what = "neither file nor directory"
	}
	return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%w, it is %s", ErrNotRegular, what)}
}

func tooLarge(size, limit int64) error {
	return fmt.Errorf("%w: %s or more, at most %s are read", ErrTooLarge, humanize.IBytes(uint64(size)), humanize.IBytes(uint64(limit)))
}
