// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/podmeter/podmeter/internal/regular"
	"golang.org/x/sys/unix"
)

// stamp tells one content of a path from another; zero when there is no file.
type stamp struct {
	size, modified int64 // bytes; nanoseconds since 1970
	device, inode  uint64
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), modified: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode = uint64(st.Dev), st.Ino
	}
	return s
}

// stampAt returns the stamp of what is at a path now.
func stampAt(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stampOf(info)
}

// roomReserve is what a database has to leave of the memory limit, in bytes.
const roomReserve = 16 << 20

// readDatabase opens the database file at a path, from a copy in memory of its
// own. A mapping of the file would share its pages with other processes, but
// kill this one (SIGBUS) when the file is truncated, and show the half-written
// records, and so wrong countries, of a file that is rewritten in place.
//
// room is how many bytes may still be taken.
func readDatabase(path string, room int64) (*database, error) {
	file, info, err := regular.Open(path, sizeMax)
	switch err = fileError(err); {
	case errors.Is(err, regular.ErrNotRegular), errors.Is(err, regular.ErrTooLarge):
		return nil, fmt.Errorf("%w: %w", ErrNotMMDB, err)
	case err != nil:
		return nil, err
	}
	defer file.Close() // of a read: nothing to lose
	switch size := info.Size(); {
	case size == 0:
		return nil, fmt.Errorf("%w: file is empty", ErrNotMMDB)
	case size+checkMemory(size) > room-roomReserve:
		return nil, fmt.Errorf("%w: it takes %s, and the limit of the process's memory leaves %s",
			ErrNoRoom, humanize.IBytes(uint64(size+checkMemory(size))), humanize.IBytes(uint64(max(room, 0))))
	}
	return mapDatabase(file, info)
}

// mapDatabase copies the file into anonymous memory and opens it there.
func mapDatabase(file *os.File, before fs.FileInfo) (*database, error) {
	data, err := unix.Mmap(-1, 0, int(before.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("allocate %d bytes: %w", before.Size(), err)
	}
	if err := copyFile(data, file, before); err != nil {
		return nil, errors.Join(err, unix.Munmap(data))
	}
	db, err := newDatabase(data)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(data))
	}
	db.mapping = data
	return db, nil
}

// copyFile fills data from the file and makes sure that nobody wrote meanwhile.
func copyFile(data []byte, file *os.File, before fs.FileInfo) error {
	if _, err := io.ReadFull(file, data); err != nil {
		return fileError(err)
	}
	after, err := file.Stat()
	if err != nil {
		return fileError(err)
	}
	if stampOf(before) != stampOf(after) {
		return errors.New("file changed while it was read")
	}
	return nil
}

// fileError drops operation and path of an error of package os, which the
// caller names.
func fileError(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}
