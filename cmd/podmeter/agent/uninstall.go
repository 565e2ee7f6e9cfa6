// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/podmeter/podmeter/datapath"
	"golang.org/x/sys/unix"
)

// Uninstall removes what agents have left under a pin path, and in a state
// directory, which goes too if nothing else is in it. It returns what was removed,
// also with an error.
func Uninstall(pinPath, stateDir string) (removed []string, err error) {
	// An agent holds the uplinks' pins before it lets go of the pods'.
	removed, err = uninstallUplinks(pinPath, stateDir)
	if err != nil {
		return removed, err
	}
	pins, err := datapath.Uninstall(pinPath)
	removed = append(removed, pins...)
	if err != nil {
		return removed, err
	}
	files, err := removeCheckpoints(stateDir, checkpointName)
	removed = append(removed, files...)
	if err != nil {
		return removed, err
	}
	err = unix.Rmdir(stateDir)
	switch {
	case err == nil:
		return append(removed, stateDir), nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.ENOTDIR):
		return removed, nil
	}
	return removed, fmt.Errorf("remove state directory %s: %w", stateDir, err)
}

// removeCheckpoints removes a checkpoint and what was made beside it.
func removeCheckpoints(stateDir, name string) (removed []string, err error) {
	for _, suffix := range []string{"", nextSuffix, behindSuffix, rejectedSuffix} {
		path := filepath.Join(stateDir, name+suffix)
		switch err := os.Remove(path); {
		case err == nil:
			removed = append(removed, path)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
			return removed, fmt.Errorf("remove checkpoint: %w", err)
		}
	}
	return removed, nil
}
