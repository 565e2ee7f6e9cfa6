// SPDX-License-Identifier: Apache-2.0

// Package owned writes files in directories that are this process's alone: nobody else can
// put a link, a pipe or another file in the place of one that is about to be written or read.
//
// A [Directory] holds its directory open: what happens to the path meanwhile does not matter.
// It may be used by several goroutines, though not for one name at a time.
package owned

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Directory is an open directory. Names are of what is in it.
type Directory struct{ root *os.Root }

// Open opens a directory, and makes it with what is missing above it, with the mode. The error
// is [ErrForeign] where others can change what is in it.
func Open(path string, mode fs.FileMode) (*Directory, error) {
	if err := Check(path); err != nil { // before something is made there
		return nil, err
	}
	if err := os.MkdirAll(path, mode); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	if err := checkOpen(root, path); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &Directory{root}, nil
}

// checkOpen checks the directory that was opened, and that it is what has the path.
func checkOpen(root *os.Root, path string) error {
	opened, err := root.Stat(".")
	if err != nil {
		return err
	}
	if err := Check(path); err != nil {
		return err
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(opened, now) {
		return fmt.Errorf("%w: another directory came to %s as it was opened", ErrForeign, path)
	}
	return nil
}

// Close closes the directory.
func (d *Directory) Close() error { return d.root.Close() }

// Create makes a file anew, in the place of one that was left, if there is any: links are
// not followed.
func (d *Directory) Create(name string, mode fs.FileMode) (*os.File, error) {
	if info, err := d.root.Lstat(name); err == nil && info.IsDir() {
		return nil, &fs.PathError{Op: "create", Path: name, Err: unix.EISDIR}
	}
	if err := d.Remove(name); err != nil {
		return nil, err
	}
	return d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
}

// Write makes a file with a content under a first name, and then gives it its own, so that
// there is never a part of it.
func (d *Directory) Write(name, first string, content []byte, mode fs.FileMode) error {
	file, err := d.Create(first, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err == nil {
		err = d.root.Rename(first, name)
	}
	if err != nil {
		return errors.Join(err, d.Remove(first))
	}
	return nil
}

// Rename gives a file another name, which what had it loses.
func (d *Directory) Rename(from, to string) error { return d.root.Rename(from, to) }

// Read reads a file of at most limit bytes; a link is none.
func (d *Directory) Read(name string, limit int64) ([]byte, error) {
	file, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close() // of a read: nothing to lose
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("it is no regular file")}
	case info.Size() > limit:
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it has %d bytes, more than %d", info.Size(), limit)}
	}
	return io.ReadAll(io.LimitReader(file, limit))
}

// List returns what is in the directory, by name.
func (d *Directory) List() ([]fs.DirEntry, error) { return fs.ReadDir(d.root.FS(), ".") }

// Remove removes a file if it is there.
func (d *Directory) Remove(name string) error { return ignoreMissing(d.root.Remove(name)) }
