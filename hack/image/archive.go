// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// The annotations by which an archive's readers find the image's name: all of it
// for containerd, its tag for the others.
const (
	containerdName = "io.containerd.image.name"
	ociReference   = "org.opencontainers.image.ref.name"
)

// writeArchive writes an OCI layout that holds the index under a name.
func writeArchive(out, name string, index v1.ImageIndex) (err error) {
	directory, err := os.MkdirTemp("", "podmeter-image")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	path, err := layout.Write(directory, empty.Index)
	if err != nil {
		return err
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{
		containerdName: name, ociReference: tag(name),
	})); err != nil {
		return err
	}
	archive, err := os.Create(out)
	if err != nil {
		return err
	}
	return errors.Join(packDirectory(archive, directory), archive.Close())
}

// tag returns what stands behind the colon of an image's name, "latest" if there is
// none. A colon before the last slash is that of a registry's port.
func tag(name string) string {
	last := name[strings.LastIndexByte(name, '/')+1:]
	if _, tag, ok := strings.Cut(last, ":"); ok {
		return tag
	}
	return "latest"
}

// packDirectory writes the files of a directory in the order of their names, all
// of the year 1970.
func packDirectory(to io.Writer, directory string) error {
	w := tar.NewWriter(to)
	err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(directory, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0),
		}); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	return errors.Join(err, w.Close())
}
