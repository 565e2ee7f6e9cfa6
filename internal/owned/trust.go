// SPDX-License-Identifier: Apache-2.0

package owned

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrForeign is wrapped by the errors of directories in which others can put something in
// the place of what this process writes.
var ErrForeign = errors.New("others can change what is in it")

// linkLimit is how many symbolic links a path may have, as in the kernel (MAXSYMLINKS).
const linkLimit = 40

// Check says why others could change what is in a directory, nil if they cannot or it is not
// there: each part of its path, links included, has to be root's or this user's, and nobody
// else may write a directory on the way. A sticky one, such as /tmp, may be on the way, and
// so may a volume that a container has for itself, though kubelets let all write it.
func Check(path string) error { return walk(path, false) }

// CheckSticky is Check, but the directory itself may be a sticky one.
func CheckSticky(path string) error { return walk(path, true) }

func walk(path string, sticky bool) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	rest, at := split(path), "/"
	for links := 0; ; {
		directory, err := os.Lstat(at)
		if err != nil {
			return ignoreMissing(err)
		}
		if err := trusted(path, at, directory, sticky || len(rest) > 0); err != nil || len(rest) == 0 {
			return err
		}
		next := filepath.Join(at, rest[0])
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			return ignoreMissing(err)
		case info.Mode()&fs.ModeSymlink == 0:
			at, rest = next, rest[1:]
			continue
		case !ours(info):
			return foreign(path, next, fmt.Sprintf("is a link of user %d", owner(info).Uid))
		}
		target, err := os.Readlink(next)
		if err != nil {
			return err
		}
		if links++; links > linkLimit {
			return &fs.PathError{Op: "follow", Path: path, Err: syscall.ELOOP}
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(split(target), rest[1:]...)
	}
}

// split returns the names of a path. Of a link's target some may be "..".
func split(path string) (names []string) {
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}

// trusted says why a directory, at a path without links, cannot be written in or gone through.
func trusted(path, at string, info fs.FileInfo, sticky bool) error {
	switch {
	case !info.IsDir():
		return &fs.PathError{Op: "open", Path: at, Err: syscall.ENOTDIR}
	case !ours(info):
		return foreign(path, at, fmt.Sprintf("belongs to user %d", owner(info).Uid))
	case !sharedWithOthers(info), sticky && info.Mode()&fs.ModeSticky != 0, isVolume(at, info):
		return nil
	}
	return foreign(path, at, fmt.Sprintf("has mode %v and group %d", info.Mode().Perm(), owner(info).Gid))
}

func foreign(path, at, why string) error {
	return fmt.Errorf("%w: %s %s; choose a directory that user %d alone can write, and all above it (chown, chmod go-w), instead of %s",
		ErrForeign, at, why, os.Geteuid(), path)
}

func owner(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) }

func ours(info fs.FileInfo) bool {
	uid := owner(info).Uid
	return uid == 0 || int(uid) == os.Geteuid()
}

// sharedWithOthers reports whether a directory can be written by others than root, this
// user, and the group that some systems give each user.
func sharedWithOthers(info fs.FileInfo) bool {
	gid, mode := owner(info).Gid, info.Mode().Perm()
	return mode&0o002 != 0 || mode&0o020 != 0 && gid != 0 && int(gid) != os.Getegid()
}

// isVolume reports whether another file system begins at a directory, which is not sticky as
// those that all processes of a machine write are: what is mounted so belongs to a container.
func isVolume(at string, info fs.FileInfo) bool {
	above, err := os.Lstat(filepath.Dir(at))
	return err == nil && owner(above).Dev != owner(info).Dev && info.Mode()&fs.ModeSticky == 0
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
