// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/internal/owned"
	"golang.org/x/sys/unix"
)

// defaultBPFFS is where the BPF file system is by convention.
const defaultBPFFS = "/sys/fs/bpf"

// Errors about the pin path.
var (
	// ErrPinPath is returned for a pin path that cannot be one.
	ErrPinPath = errors.New("not a usable pin path")
	// ErrNoBPFFS is returned when there is no BPF file system at it, and none can be
	// mounted.
	ErrNoBPFFS = errors.New("no BPF file system")
)

// preparePinPath makes the pin directory, and mounts the BPF file system at its
// usual place if it is not there.
func preparePinPath(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%w: %q is not absolute", ErrPinPath, path)
	}
	parent := path
	for parent != "/" && !exists(parent) {
		parent = filepath.Dir(parent)
	}
	mounted, err := isBPFFS(parent)
	if err != nil {
		return err
	}
	if !mounted {
		if err := mountBPFFS(path); err != nil {
			return err
		}
	}
	// Maps that somebody else put there would be gone on with. Before it is made, and after.
	for range 2 {
		if err := owned.Check(path); errors.Is(err, owned.ErrForeign) {
			return fmt.Errorf("%w: %w", ErrPinPath, err)
		}
		if err := os.MkdirAll(path, 0o700); err != nil {
			return fmt.Errorf("make pin directory: %w", err)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func isBPFFS(path string) (bool, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return false, fmt.Errorf("look at file system of %s: %w", path, err)
	}
	return uint32(s.Type) == unix.BPF_FS_MAGIC, nil
}

// mountBPFFS mounts the BPF file system for a pin path below its usual place.
func mountBPFFS(path string) error {
	how := fmt.Sprintf("mount one with: mount -t bpf bpf %s", defaultBPFFS)
	if !strings.HasPrefix(path, defaultBPFFS+"/") {
		return fmt.Errorf("%w: %w at %s; choose a path below %s, or %s", ErrPinPath, ErrNoBPFFS, path, defaultBPFFS, how)
	}
	if err := unix.Mount("bpf", defaultBPFFS, "bpf", 0, ""); err != nil {
		return fmt.Errorf("%w at %s (%s): mount it: %w", ErrNoBPFFS, defaultBPFFS, how, err)
	}
	return nil
}

// pinMaps pins maps by their names. On an error none is left.
func pinMaps(path string, maps map[string]*ebpf.Map) error {
	for name, m := range maps {
		if err := m.Pin(filepath.Join(path, name)); err != nil {
			return errors.Join(fmt.Errorf("pin map %s: %w", name, err), unpinMaps(path, maps))
		}
	}
	return nil
}

// unpinMaps removes the pins that there are.
func unpinMaps(path string, maps map[string]*ebpf.Map) error {
	var errs []error
	for name := range maps {
		errs = append(errs, remove(filepath.Join(path, name)))
	}
	return errors.Join(errs...)
}

// remove removes a file or an empty directory if it is there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
