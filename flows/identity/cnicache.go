// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/podmeter/podmeter/internal/regular"
)

const (
	// cniAge is for how long a listing of the directory serves: about one drain.
	cniAge = 200 * time.Millisecond
	// maxCNIFile is more than a result takes, its configuration included.
	maxCNIFile = 256 << 10
	// maxCNIFiles bounds the time that a listing takes. Where so many are left
	// behind, something is broken that is not ours to mend.
	maxCNIFiles = 16384
	// cniMemory is for how long a result is remembered after its file was removed: as long as
	// an interface that is gone waits for its pod.
	cniMemory = 10 * time.Minute
	// cniRetry is how often a directory that cannot be watched is tried again: it may not be
	// there until the first pod is.
	cniRetry = 5 * time.Second
)

// cniCache is libcni's cache of results: one file for each interface of each
// container, written when the plugins are done with it and removed with it. It is
// read when somebody asks, and when the kernel tells of a new file, as a container may live
// for less than a drain: a file only when it has changed.
type cniCache struct {
	directories []string
	clock       func() time.Time
	logger      *slog.Logger
	told        sync.Once

	mu       sync.Mutex
	listed   time.Time
	files    map[string]*cniCached // by path
	byDevice map[string][]*cniCached
	problem  string // of the last listing
}

// cniCached is a file as it was read.
type cniCached struct {
	written time.Time // by the wall clock, as the file says
	// noticed is when the kernel told that it was written, zero of a file that was found.
	noticed time.Time
	size    int64
	result  *cniResult // nil if it is of no use
	removed time.Time  // when that was noticed
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
	c.look()
	return c.byDevice[device]
}

// look lists the directories unless that was done just now.
func (c *cniCache) look() {
	if now := c.clock(); c.listed.IsZero() || now.Sub(c.listed) >= cniAge || now.Before(c.listed) {
		c.listed = now
		c.report(c.list())
	}
}

// watch reads files as they come, until ctx is done. Where the directories cannot be watched
// those are read that are there when somebody asks.
func (c *cniCache) watch(ctx context.Context) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		c.unwatched(err)
		return
	}
	defer watcher.Close()
	retry := time.NewTicker(cniRetry)
	defer retry.Stop()
	for {
		c.watchOn(watcher)
		select {
		case <-ctx.Done():
			return
		case event := <-watcher.Events:
			switch {
			case event.Has(fsnotify.Create), event.Has(fsnotify.Write):
				c.notice(event.Name)
			case event.Has(fsnotify.Remove), event.Has(fsnotify.Rename):
				c.noticeRemoval(event.Name)
			}
		case <-watcher.Errors: // events were lost
			c.mu.Lock()
			c.look()
			c.mu.Unlock()
		case <-retry.C:
		}
	}
}

// unwatched tells once that the kernel does not tell of new files.
func (c *cniCache) unwatched(err error) {
	c.told.Do(func() {
		c.logger.Warn("pods that live for less than a drain may stay unbound: CNI results cannot be watched; raise the limits fs.inotify.*",
			"error", err)
	})
}

// watchOn watches the directories that are there and are not watched yet: one that was removed
// is watched no more. What is in one by now is read.
func (c *cniCache) watchOn(watcher *fsnotify.Watcher) {
	watched := watcher.WatchList()
	for _, directory := range c.directories {
		if slices.Contains(watched, directory) {
			continue
		}
		if err := watcher.Add(directory); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				c.unwatched(err)
			}
			continue
		}
		c.mu.Lock()
		c.look()
		c.mu.Unlock()
	}
}

// notice reads one file that is new or has changed.
func (c *cniCache) notice(path string) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.files[path]
	if known == nil && len(c.files) >= maxCNIFiles {
		return
	}
	if known != nil {
		c.forgetDevices(known)
	}
	if next := c.current(path, info, known); next != nil {
		noticed := *next // others may read the one that was
		noticed.noticed = c.clock()
		c.add(path, &noticed)
	}
}

// noticeRemoval takes note that a file is not there any more.
func (c *cniCache) noticeRemoval(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.files[path]; known != nil && known.result != nil {
		c.forgetDevices(known)
		c.add(path, known.removedAt(c.clock()))
	}
}

// removedAt returns the file as one that is not there any more. Others may read the one that was.
func (f *cniCached) removedAt(now time.Time) *cniCached {
	if !f.removed.IsZero() {
		return f
	}
	removed := *f
	removed.removed = now
	return &removed
}

func (c *cniCache) forgetDevices(file *cniCached) {
	if file.result == nil {
		return
	}
	for device := range file.result.devices {
		c.byDevice[device] = slices.DeleteFunc(slices.Clone(c.byDevice[device]), func(f *cniCached) bool { return f == file })
	}
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
	c.keepRemoved(before)
	return nil
}

// keepRemoved remembers the results whose files are not there any more.
func (c *cniCache) keepRemoved(before map[string]*cniCached) {
	now := c.clock()
	for path, file := range before {
		if c.files[path] != nil || file.result == nil || len(c.files) >= maxCNIFiles {
			continue
		}
		file = file.removedAt(now)
		if now.Sub(file.removed) < cniMemory {
			c.add(path, file)
		}
	}
}

// add takes a file among those that are known.
func (c *cniCache) add(path string, file *cniCached) {
	c.files[path] = file
	if file.result == nil {
		return
	}
	for device := range file.result.devices {
		c.byDevice[device] = append(c.byDevice[device], file)
	}
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
			if now := c.current(file, info, known[file]); now != nil {
				c.add(file, now)
			}
		}
	}
	return nil
}

// current returns a file as it is, given what is known of it; nil if it is not there any more.
func (c *cniCache) current(path string, info fs.FileInfo, known *cniCached) *cniCached {
	if known == nil || !known.removed.IsZero() || known.size != info.Size() || !known.written.Equal(info.ModTime()) {
		return c.read(path)
	}
	return known
}

// read reads a file; nil if it is not there any more.
func (c *cniCache) read(path string) *cniCached {
	data, info, err := regular.ReadUnlinked(path, maxCNIFile)
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
