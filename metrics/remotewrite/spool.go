// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// spoolSuffix ends the name of a request's file, which is its number.
const spoolSuffix = ".rw"

// spool are requests on disk that are still to be sent, in their order, within a bound.
type spool struct {
	folder string
	limit  int64 // bytes

	mu      sync.Mutex
	waiting []spooled
	bytes   int64
	next    uint64
	// own is the first number of this process.
	own uint64
	// arrived is told when there is something to be sent.
	arrived chan struct{}
}

type spooled struct {
	number uint64
	size   int64
}

// openSpool opens a folder of requests, those of an earlier process included.
func openSpool(folder string, limit int64) (*spool, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	entries, err := os.ReadDir(folder) // sorted by name, hence by number
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	s := &spool{folder: folder, limit: limit, arrived: make(chan struct{}, 1)}
	for _, entry := range entries {
		number, is := strings.CutSuffix(entry.Name(), spoolSuffix)
		n, err := strconv.ParseUint(number, 10, 64)
		if !is || err != nil {
			_ = os.Remove(filepath.Join(folder, entry.Name())) // was not finished
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return nil, fmt.Errorf("read spool: %w", err)
		}
		s.waiting, s.next, s.bytes = append(s.waiting, spooled{n, info.Size()}), n+1, s.bytes+info.Size()
	}
	s.own = s.next
	if len(s.waiting) > 0 {
		s.arrived <- struct{}{}
	}
	return s, nil
}

func (s *spool) path(number uint64) string {
	return filepath.Join(s.folder, fmt.Sprintf("%020d%s", number, spoolSuffix))
}

// inherited reports whether a request is of an earlier process.
func (s *spool) inherited(number uint64) bool { return number < s.own }

// put appends a request. It returns how many of the eldest had to go for it.
func (s *spool) put(request []byte) (dropped int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.path(s.next)
	if err := os.WriteFile(path+".part", request, 0o600); err != nil {
		return 0, errors.Join(fmt.Errorf("write spool: %w", err), ignoreMissing(os.Remove(path+".part")))
	}
	if err := os.Rename(path+".part", path); err != nil {
		return 0, fmt.Errorf("write spool: %w", err)
	}
	s.waiting, s.bytes = append(s.waiting, spooled{s.next, int64(len(request))}), s.bytes+int64(len(request))
	s.next++
	for s.bytes > s.limit && len(s.waiting) > 1 {
		if err := s.drop(); err != nil {
			return dropped, err
		}
		dropped++
	}
	select {
	case s.arrived <- struct{}{}:
	default: // told already
	}
	return dropped, nil
}

// first returns the eldest request; ok is false if there is none.
func (s *spool) first() (number uint64, request []byte, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return 0, nil, false, nil
	}
	number = s.waiting[0].number
	request, err = os.ReadFile(s.path(number))
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
	if err := ignoreMissing(os.Remove(s.path(eldest.number))); err != nil {
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

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
