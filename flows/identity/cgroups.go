// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// cgroupRescan is how often the tree is read whole, in case an event was missed;
	// cgroupPoll where the kernel tells of no events, cgroupSearch where not of all.
	cgroupRescan = 30 * time.Second
	cgroupPoll   = time.Second
	cgroupSearch = 5 * time.Second
	// cgroupMemory is for how long a cgroup is remembered after its end: its flows are read
	// a drain or two later.
	cgroupMemory = 2 * time.Minute
	// maxCgroups bounds the tree, and what is known of it: 110 pods have a thousand.
	maxCgroups = 65536
)

// Cgroups knows the containers of a node's cgroups by the names that the kubelet and the
// container runtime give their directories, with the cgroupfs and the systemd driver
// alike, below the kubelet's root. It implements [flows.Containers] with what a cache tells of pods.
type Cgroups struct {
	root   string
	cache  *Cache
	clock  func() time.Time
	logger *slog.Logger
	told   sync.Once
	// blind is that not all cgroups are watched, as of the last scan. It is Run's alone.
	blind bool

	mu   sync.Mutex
	byID map[uint64]*cgroup
	// unpopulated are the pods that run without a process, by what their cgroups call them.
	unpopulated map[string]*UnpopulatedPod
	// without is since when pods run of which none has a cgroup here, zero while one has.
	without     time.Time
	toldWithout bool
	// appeared is told when a pod's own cgroup is new.
	appeared chan struct{}
	// scanned is closed when the tree has been read for the first time.
	scanned chan struct{}
}

// cgroup is a directory of a pod or of what is in it.
type cgroup struct {
	pod       string // as its directory is called
	container string // id, empty of the pod's own
	path      string // of the pod's own
	gone      time.Time
}

// NewCgroups returns the cgroups below the root of the v2 hierarchy, for a cache that
// knows the names of containers.
func NewCgroups(root string, cache *Cache, logger *slog.Logger) *Cgroups {
	return &Cgroups{root: root, cache: cache, clock: cache.clock, logger: logger, byID: make(map[uint64]*cgroup),
		appeared: make(chan struct{}, 1), scanned: make(chan struct{})}
}

// Scanned is closed when all cgroups are known that were there when Run began.
func (c *Cgroups) Scanned() <-chan struct{} { return c.scanned }

// Root returns the root of the hierarchy.
func (c *Cgroups) Root() string { return c.root }

// Container implements [flows.Containers].
func (c *Cgroups) Container(id uint64) (pod, name string) {
	c.mu.Lock()
	found := c.byID[id]
	c.mu.Unlock()
	if found == nil {
		return "", ""
	}
	return c.cache.container(found.pod, found.container)
}

// Run follows the tree until ctx is done. It is called once.
func (c *Cgroups) Run(ctx context.Context) error {
	interval := cgroupRescan
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		c.unwatched(err)
		watcher, interval = &fsnotify.Watcher{}, cgroupPoll // without events
	} else {
		defer watcher.Close()
	}
	c.scan(watcher)
	close(c.scanned)
	rescan := time.NewTicker(c.pace(interval))
	defer rescan.Stop()
	processes := time.NewTicker(populatedInterval)
	defer processes.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-watcher.Events:
			if event.Has(fsnotify.Create) {
				c.walk(watcher, event.Name)
			}
		case err := <-watcher.Errors: // events were lost
			c.logger.Debug("watch cgroups", "error", err)
			c.scan(watcher)
		case <-rescan.C:
			c.scan(watcher)
			rescan.Reset(c.pace(interval))
		case <-processes.C:
			c.lookForProcesses()
		}
	}
}

// pace returns how often the tree is read whole, which is the interval at most.
func (c *Cgroups) pace(interval time.Duration) time.Duration {
	if c.blind {
		return min(interval, cgroupSearch)
	}
	return interval
}

// unwatched tells once that the kernel does not tell of new cgroups.
func (c *Cgroups) unwatched(err error) {
	c.told.Do(func() {
		c.logger.Warn("containers that live for a short time may stay unknown: cgroups cannot be watched; raise the limits fs.inotify.*",
			"error", err)
	})
}

// scan reads the whole tree, and forgets what has been gone for long.
func (c *Cgroups) scan(watcher *fsnotify.Watcher) {
	c.blind = false
	present := c.walk(watcher, c.root)
	now := c.clock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, known := range c.byID {
		switch {
		case present[id]: // noted anew
		case known.gone.IsZero():
			known.gone = now
		case now.Sub(known.gone) > cgroupMemory:
			delete(c.byID, id)
		}
	}
}

// walk takes note of a directory and all below it, and watches them. It returns the ids
// of those that are of pods. What vanishes meanwhile is no error.
func (c *Cgroups) walk(watcher *fsnotify.Watcher, from string) (present map[uint64]bool) {
	present = make(map[uint64]bool)
	seen, watched := 0, watcher.Events != nil
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil //nolint:nilerr // it has gone
		}
		if c.ofOthers(path) {
			return fs.SkipDir // and takes no watches, however many there are
		}
		if seen++; seen > maxCgroups {
			return errors.New("too many cgroups")
		}
		// Before it is read: what is made in it later is told.
		if watched {
			if err := watcher.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				watched, c.blind = false, true
				c.unwatched(err)
			}
		}
		if id, known := c.note(path); known {
			present[id] = true
		}
		return nil
	})
	if err != nil {
		c.logger.Warn("not all cgroups are known, nor the containers of some sockets", "error", err)
	}
	return present
}

// ofOthers reports whether no pod's cgroup can be at a path or below it.
func (c *Cgroups) ofOthers(path string) bool {
	below, err := filepath.Rel(c.root, path)
	if err != nil {
		return true
	}
	_, _, others := findPods(strings.Split(below, "/"))
	return others
}

// note takes note of a directory, if it is of a pod.
func (c *Cgroups) note(path string) (id uint64, isPods bool) {
	below, err := filepath.Rel(c.root, path)
	if err != nil {
		return 0, false
	}
	pod, container, depth := locateCgroup(below)
	if pod == "" || !c.undelegated(below, depth) {
		return 0, false
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	id = info.Sys().(*syscall.Stat_t).Ino
	known := &cgroup{pod: pod, container: container}
	if depth == 1+strings.Count(below, "/") {
		known.path = path
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID[id] == nil {
		if len(c.byID) >= maxCgroups {
			c.cache.excess.note("cgroup", "", "", BoundCgroups)
			return 0, false
		}
		if known.path != "" {
			c.tell()
		}
	}
	c.byID[id] = known
	return id, true
}

func (c *Cgroups) tell() {
	select {
	case c.appeared <- struct{}{}:
	default: // told already
	}
}

// Appeared is sent to when the cgroup of a pod was found.
func (c *Cgroups) Appeared() <-chan struct{} { return c.appeared }

// HostPod is a pod of this node in its network: what its cgroup calls it by, and the
// directory of that.
type HostPod struct{ UID, Cgroup string }

// HostPods returns those that have a cgroup and that the cache knows.
func (c *Cgroups) HostPods() (all []HostPod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range c.byID {
		if known.path != "" && known.gone.IsZero() && c.cache.hostPod(known.pod) != nil {
			all = append(all, HostPod{known.pod, known.path})
		}
	}
	return all
}
