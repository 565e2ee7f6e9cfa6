// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// cniAge is for how long a listing of the directory serves: about one drain.
	cniAge = 200 * time.Millisecond
	// maxCNIFile is more than a result takes, its configuration included.
	maxCNIFile = 256 << 10
	// maxCNIFiles bounds the time that a listing takes. Where so many are left
	// behind, something is broken that is not ours to mend.
	maxCNIFiles = 16384
)

// cniCache is libcni's cache of results: one file for each interface of each
// container, written when the plugins are done with it and removed with it. It is
// read when somebody asks, and a file only when it has changed.
type cniCache struct {
	directories []string
	clock       func() time.Time
	logger      *slog.Logger

	mu       sync.Mutex
	listed   time.Time
	files    map[string]*cniCached // by path
	byDevice map[string][]*cniCached
	problem  string // of the last listing
}

// cniCached is a file as it was read.
type cniCached struct {
	written time.Time
	size    int64
	result  *cniResult // nil if it is of no use
}

// newCNICache returns the cache of a directory that need not exist. Multus has one of
// its own in it, for the networks that it adds (cniDir in its doc/configuration.md).
func newCNICache(directory string, clock func() time.Time, logger *slog.Logger) *cniCache {
	return &cniCache{
		directories: []string{filepath.Join(directory, "results"), filepath.Join(directory, "multus", "results")},
		clock:       clock, logger: logger,
	}
}

// of returns the files that name a device of the host. They must not be changed.
func (c *cniCache) of(device string) []*cniCached {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.clock(); c.listed.IsZero() || now.Sub(c.listed) >= cniAge || now.Before(c.listed) {
		c.listed = now
		c.report(c.list())
	}
	return c.byDevice[device]
}

// report says once what keeps the directory from being read. That there is none is
// usual: not every runtime keeps one.
func (c *cniCache) report(err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	if problem == c.problem {
		return
	}
	c.problem = problem
	switch {
	case err == nil:
		c.logger.Info("the cache of CNI results can be read again", "directory", c.directories[0])
	case errors.Is(err, fs.ErrNotExist):
		c.logger.Debug("no cache of CNI results, interfaces are bound by their addresses", "directory", c.directories[0])
	default:
		c.logger.Warn("cannot read the cache of CNI results, interfaces are bound by their addresses", "error", err)
	}
}

// list reads what is new. On an error nothing is known.
func (c *cniCache) list() error {
	before := c.files
	c.files, c.byDevice = make(map[string]*cniCached, len(before)), make(map[string][]*cniCached)
	for n, directory := range c.directories {
		err := c.listOne(directory, before)
		if n > 0 && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			clear(c.files)
			clear(c.byDevice)
			return err
		}
	}
	return nil
}

// listOne reads what is new in a directory, given what is known of its files.
func (c *cniCache) listOne(path string, known map[string]*cniCached) error {
	directory, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open cache of CNI results: %w", err)
	}
	defer directory.Close()
	entries, err := directory.ReadDir(maxCNIFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("list cache of CNI results: %w", err)
	}
	if len(entries) > maxCNIFiles {
		return fmt.Errorf("list cache of CNI results: %s has more than %d files: most must be of containers that are gone", path, maxCNIFiles)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			file := filepath.Join(path, entry.Name())
			c.take(file, info, known[file])
		}
	}
	return nil
}

// take takes note of a file, given what is known of it.
func (c *cniCache) take(path string, info fs.FileInfo, known *cniCached) {
	if known == nil || known.size != info.Size() || !known.written.Equal(info.ModTime()) {
		known = c.read(path)
	}
	if known == nil {
		return
	}
	c.files[path] = known
	if known.result == nil {
		return
	}
	for device := range known.result.devices {
		c.byDevice[device] = append(c.byDevice[device], known)
	}
}

// read reads a file; nil if it is not there any more.
func (c *cniCache) read(path string) *cniCached {
	data, info, err := readRegular(path, maxCNIFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	file := &cniCached{}
	if info != nil {
		file.written, file.size = info.ModTime(), info.Size()
	}
	if err == nil {
		file.result, err = parseCNIResult(data)
	}
	if err != nil { // it may still be being written: then it changes
		c.logger.Debug("leave out a cached CNI result", "file", path, "error", err)
	}
	return file
}

// readRegular reads a file that is no link, no device and not too long. It returns
// how the file was, if it could be opened.
func readRegular(path string, limit int64) ([]byte, fs.FileInfo, error) {
	return readBounded(path, limit, syscall.O_NOFOLLOW)
}
