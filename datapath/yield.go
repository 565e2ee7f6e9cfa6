// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// yieldPause is for how long no foreign program must have been seen before podmeter
// attaches: one that is replaced is away for a moment. It also bounds how often somebody
// can make the meter load its programs.
const yieldPause = 10 * time.Second

// Yield is a cgroup that podmeter leaves alone, as its programs there would switch off a
// foreign one.
type Yield struct {
	// UID is the pod's, as its cgroup is called.
	UID     string
	Cgroup  string
	Foreign ForeignProgram
}

// yields are the cgroups that are left to foreign programs, by their points.
type yields struct {
	pause time.Duration
	log   *slog.Logger

	mu sync.Mutex
	of map[uint32]*yield
}

type yield struct {
	Yield
	seen time.Time // when the foreign program was last there
}

func newYields(pause time.Duration, log *slog.Logger) *yields {
	return &yields{pause: pause, log: log, of: make(map[uint32]*yield)}
}

// note takes note of what a look has found on or above a cgroup, nil for nothing, and
// reports whether the cgroup is to be left alone.
func (y *yields) note(point uint32, pod HostPod, found *ForeignProgram, now time.Time) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	known := y.of[point]
	switch {
	case found == nil && known == nil:
		return false
	case found == nil && now.Sub(known.seen) < y.pause:
		return true
	case found == nil:
		delete(y.of, point)
		y.log.Info("a foreign program has gone: the pod in the node's network is metered", "cgroup", pod.Cgroup, "foreign", known.Foreign)
		return false
	case !y.knows(*found):
		y.log.Warn("podmeter's programs would switch off a foreign one: pods in the node's network at or below its cgroup are not metered",
			"foreign", *found)
	}
	y.of[point] = &yield{Yield{pod.UID, pod.Cgroup, *found}, now}
	return true
}

// knows reports whether a cgroup is left to the program. The caller holds the lock.
func (y *yields) knows(program ForeignProgram) bool {
	for _, known := range y.of {
		if known.Foreign == program {
			return true
		}
	}
	return false
}

// left says that adopted programs were ended for a foreign one, if there is one.
func (y *yields) left(cgroup string, found *ForeignProgram) {
	if found != nil {
		y.log.Warn("podmeter's programs on a cgroup switched off a foreign one, and are removed", "cgroup", cgroup, "foreign", *found)
	}
}

// forgetAbsent forgets the cgroups that are not wanted any more.
func (y *yields) forgetAbsent(wanted map[uint32]HostPod) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for point := range y.of {
		if _, there := wanted[point]; !there {
			delete(y.of, point)
		}
	}
}

func (y *yields) all() (all []Yield) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, known := range y.of {
		all = append(all, known.Yield)
	}
	slices.SortFunc(all, func(a, b Yield) int { return cmp.Compare(a.Cgroup, b.Cgroup) })
	return all
}

// Yields returns the cgroups of pods in the node's network that are not metered, as
// podmeter's programs would switch off foreign ones.
func (m *Meter) Yields() []Yield { return m.yields.all() }

// hostTypes are how podmeter attaches to a pod's cgroup.
var hostTypes = []ebpf.AttachType{ebpf.AttachCGroupInetEgress, ebpf.AttachCGroupInetIngress}

// yieldHosts takes those out of wanted that are left to foreign programs. Where that is not
// known, what is attached stays, and nothing new is.
func (m *Meter) yieldHosts(wanted map[uint32]HostPod) error {
	var errs []error
	look := newForeignLook(hostTypes...)
	for point, pod := range wanted {
		found, err := look.find(pod.Cgroup)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV): // it has ended
		case err != nil:
			errs = append(errs, err)
			if !m.hosts.lives(point) {
				delete(wanted, point)
			}
		case m.yields.note(point, pod, found, time.Now()):
			delete(wanted, point)
		}
	}
	return errors.Join(errs...)
}

// leaveYielded looks again after programs were attached, as a foreign one may have come in
// between.
func (m *Meter) leaveYielded(joined map[uint32]HostPod) error {
	stay := maps.Clone(joined)
	errs := []error{m.yieldHosts(stay)}
	for point := range joined {
		if _, stays := stay[point]; !stays && m.hosts.lives(point) {
			errs = append(errs, m.leaveHost(point))
		}
	}
	return errors.Join(errs...)
}

// hostForeign returns a foreign program that podmeter's on a cgroup switch off, nil if there
// is none, or if the cgroup is not known or has ended.
func hostForeign(cgroup string) (*ForeignProgram, error) {
	if cgroup == "" {
		return nil, nil
	}
	found, err := newForeignLook(hostTypes...).find(cgroup)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		err = nil
	}
	return found, err
}

// maxCgroups bounds the walk through the tree; 110 pods have a thousand.
const maxCgroups = 65536

// cgroupsOf returns the paths of the cgroups that have some of the points.
func (m *Meter) cgroupsOf(points map[uint32]byDirection) map[uint32]string {
	paths := make(map[uint32]string)
	if m.options.Cgroups == "" || !slices.ContainsFunc(slices.Collect(maps.Keys(points)), isHostPoint) {
		return paths
	}
	seen := 0
	_ = filepath.WalkDir(m.options.Cgroups, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil //nolint:nilerr // it has gone
		}
		if seen++; seen > maxCgroups {
			return fs.SkipAll
		}
		point, err := hostPoint(path)
		if _, known := points[point]; err == nil && known {
			paths[point] = path
		}
		return nil
	})
	return paths
}
