// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Where the node mounts file systems of its own over the machine's. They are in
// its mount namespace alone and end with it, with all that is on them.
const (
	bpfMount   = "/sys/fs/bpf"
	stateMount = "/run"
)

// Paths on them.
const (
	pinPath   = bpfMount + "/podmeter"
	directory = stateMount + "/podmeter"
)

// mountPrivate gives the node a bpffs for pins and a tmpfs for files, and makes
// the directory for files. The process must be in a mount namespace of its own
// from which nothing spreads.
func mountPrivate() error {
	if err := unix.Mount("bpf", bpfMount, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs at %s: %w", bpfMount, err)
	}
	if err := unix.Mount("tmpfs", stateMount, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=64m"); err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", stateMount, err)
	}
	if err := os.Mkdir(directory, 0o700); err != nil {
		return fmt.Errorf("make directory for the demo's files: %w", err)
	}
	return nil
}

// writeFile writes a file into the node's own directory and returns its path.
func writeFile(name string, content []byte) (path string, err error) {
	path = filepath.Join(directory, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return "", fmt.Errorf("write file for the agent: %w", err)
	}
	return path, nil
}

// fromOutside is the path by which a process outside of the node's mount
// namespace reaches a file of it.
func fromOutside(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", os.Getpid(), path)
}
