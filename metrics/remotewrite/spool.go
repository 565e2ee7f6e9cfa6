// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/podmeter/podmeter/internal/owned"
	"golang.org/x/sys/unix"
)

// spoolSuffix ends the name of a request's file, which is its number.
const spoolSuffix = ".rw"

// memoryLimit bounds the requests that wait in memory, in bytes, as their folder takes none:
// some minutes of 10,000 series.
const memoryLimit = 8 << 20

// requestLimit bounds a request that is read back, in bytes: one of 20,000 series has 1 MB.
const requestLimit = 64 << 20

// spool are requests on disk that are still to be sent, in their order, within a bound. What
// the disk does not take waits in memory, within another one.
type spool struct {
	path   string
	folder *owned.Directory // nil while the disk has no room for it
	limit  int64            // bytes

	mu      sync.Mutex
	waiting []spooled
	bytes   int64
	held    int64 // of bytes, those in memory
	next    uint64
	// own is the first number of this process.
	own uint64
	// arrived is told when there is something to be sent.
	arrived chan struct{}
}

type spooled struct {
	number uint64
	size   int64
	held   []byte // in memory, nil if it is on disk
}

// openSpool opens a folder of requests, those of an earlier process included. One that is not
// there, and that the disk has no room for, is made when there is.
func openSpool(folder string, limit int64) (*spool, error) {
	directory, err := owned.Open(folder, 0o700)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &spool{path: folder, limit: limit, arrived: make(chan struct{}, 1)}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	entries, err := directory.List() // sorted by name, hence by number
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read spool: %w", err), directory.Close())
	}
	s := &spool{path: folder, folder: directory, limit: limit, arrived: make(chan struct{}, 1)}
	for _, entry := range entries {
		number, is := strings.CutSuffix(entry.Name(), spoolSuffix)
		n, err := strconv.ParseUint(number, 10, 64)
		if !is || err != nil {
			_ = directory.Remove(entry.Name()) // was not finished
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read spool: %w", err), directory.Close())
		}
		s.waiting, s.next, s.bytes = append(s.waiting, spooled{number: n, size: info.Size()}), n+1, s.bytes+info.Size()
	}
	s.own = s.next
	if len(s.waiting) > 0 {
		s.arrived <- struct{}{}
	}
	return s, nil
}

func spoolName(number uint64) string { return fmt.Sprintf("%020d%s", number, spoolSuffix) }

// inherited reports whether a request is of an earlier process.
func (s *spool) inherited(number uint64) bool { return number < s.own }

// put appends a request. It returns how many had to go for it: the eldest, or itself. The
// error is of the disk; the request waits in memory then, if there is room.
func (s *spool) put(request []byte) (dropped int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := spooled{number: s.next, size: int64(len(request))}
	if err = s.write(spoolName(s.next), request); err != nil {
		err = fmt.Errorf("write spool: %w", err)
		if s.held+next.size > memoryLimit {
			return 1, err
		}
		next.held = slices.Clone(request)
		s.held += next.size
	} else {
		s.writeHeld()
	}
	s.waiting, s.bytes = append(s.waiting, next), s.bytes+next.size
	s.next++
	for s.bytes > s.limit && len(s.waiting) > 1 {
		if dropErr := s.drop(); dropErr != nil {
			return dropped, errors.Join(err, dropErr)
		}
		dropped++
	}
	select {
	case s.arrived <- struct{}{}:
	default: // told already
	}
	return dropped, err
}

// write makes a request's file, and before it the folder where there is none, or none any more: on a full
// disk somebody may remove it. The caller holds the lock.
func (s *spool) write(name string, request []byte) error {
	err := fs.ErrNotExist
	if s.folder != nil {
		err = s.folder.Write(name, name+".part", request, 0o600)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	folder, err := owned.Open(s.path, 0o700)
	if err != nil {
		return err
	}
	if s.folder != nil {
		_ = s.folder.Close() // of a directory: nothing to lose
	}
	s.folder = folder
	return s.folder.Write(name, name+".part", request, 0o600)
}

// writeHeld writes what waits in memory, now that the disk takes something again: it is to outlive
// the process. The caller holds the lock.
func (s *spool) writeHeld() {
	for i := range s.waiting {
		if s.held == 0 {
			return
		}
		request := &s.waiting[i]
		if request.held == nil {
			continue
		}
		if s.write(spoolName(request.number), request.held) != nil {
			return // it is tried again with the next request
		}
		s.held -= request.size
		request.held = nil
	}
}

// first returns the eldest request; ok is false if there is none.
func (s *spool) first() (number uint64, request []byte, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return 0, nil, false, nil
	}
	number = s.waiting[0].number
	if held := s.waiting[0].held; held != nil {
		return number, held, true, nil
	}
	request, err = s.folder.Read(spoolName(number), requestLimit)
	if err != nil {
		return number, nil, true, err
	}
	return number, request, true, nil
}

// remove takes out a request that was sent or given up, unless it had to go already.
func (s *spool) remove(number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 || s.waiting[0].number != number {
		return nil
	}
	return s.drop()
}

// drop takes out the eldest. The caller holds the lock.
func (s *spool) drop() error {
	eldest := s.waiting[0]
	s.waiting, s.bytes = s.waiting[1:], s.bytes-eldest.size
	if eldest.held != nil {
		s.held -= eldest.size
		return nil
	}
	if err := s.folder.Remove(spoolName(eldest.number)); err != nil {
		return fmt.Errorf("remove from spool: %w", err)
	}
	return nil
}

// size returns how many bytes wait.
func (s *spool) size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}
