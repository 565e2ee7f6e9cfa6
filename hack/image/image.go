// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// certificatesPath is the first place where crypto/x509 looks.
const certificatesPath = "/etc/ssl/certs/ca-certificates.crt"

// errTooLarge says that an image is larger than the limit.
var errTooLarge = errors.New("image too large")

// options are what an image is made from.
type options struct {
	name, version, revision, source, licenses string
	// binaryPath is where the binary is in the image, and its entry point.
	binaryPath string
	// link is another path of the binary, none if empty.
	link     string
	created  time.Time
	limit    int64 // bytes of one architecture's files
	binaries []binaryOf
}

// binaryOf is the program for one architecture, as GOARCH names it.
type binaryOf struct {
	architecture string
	content      []byte
}

// size is how large the image of one architecture is, in bytes.
type size struct {
	architecture      string
	files, compressed int64
}

// newIndex returns the image of every architecture, and how large each is. The
// error is errTooLarge if one exceeds the limit.
func newIndex(o options) (v1.ImageIndex, []size, error) {
	if len(o.binaries) == 0 {
		return nil, nil, errors.New("make image: there is no binary")
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var sizes []size
	for _, b := range o.binaries {
		files := []file{{path: certificatesPath, mode: 0o644, content: caCertificates()}, {path: o.binaryPath, mode: 0o755, content: b.content}}
		if o.link != "" {
			files = append(files, file{path: o.link, mode: 0o777, link: o.binaryPath})
		}
		image, s, err := newImage(o, b.architecture, files)
		if err != nil {
			return nil, nil, fmt.Errorf("make image for %s: %w", b.architecture, err)
		}
		if s.files > o.limit {
			return nil, nil, fmt.Errorf("%w: %d bytes for %s, at most %d are allowed", errTooLarge, s.files, b.architecture, o.limit)
		}
		sizes = append(sizes, s)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: b.architecture},
		}})
	}
	return index, sizes, nil
}

// newImage returns an image with a layer for each file, as the certificates
// change less often than the binary.
func newImage(o options, architecture string, files []file) (v1.Image, size, error) {
	s := size{architecture: architecture}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.ConfigFile(image, &v1.ConfigFile{
		OS: "linux", Architecture: architecture, Created: v1.Time{Time: o.created},
		Config: v1.Config{Entrypoint: []string{o.binaryPath}, User: "0:0", WorkingDir: "/", Labels: o.labels()},
	})
	if err != nil {
		return nil, s, err
	}
	for _, f := range files {
		layer, err := f.layer()
		if err != nil {
			return nil, s, fmt.Errorf("pack %s: %w", f.path, err)
		}
		image, err = mutate.Append(image, mutate.Addendum{Layer: layer, MediaType: types.OCILayer, History: v1.History{
			Created: v1.Time{Time: o.created}, CreatedBy: "COPY " + f.path,
		}})
		if err != nil {
			return nil, s, err
		}
		compressed, err := layer.Size()
		if err != nil {
			return nil, s, err
		}
		s.files += int64(len(f.content))
		s.compressed += compressed
	}
	return image, s, nil
}

// labels are the keys that the OCI image specification predefines.
func (o options) labels() map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title":    path.Base(o.binaryPath),
		prefix + "version":  o.version,
		prefix + "revision": o.revision,
		prefix + "licenses": o.licenses,
		prefix + "source":   o.source,
	}
}

// file is one file of an image, or a symbolic link to another.
type file struct {
	path    string
	mode    int64
	content []byte
	link    string // the other's path; empty for a file
}

// layer packs the file and the directories above it, all of them root's and of
// the year 1970.
func (f file) layer() (v1.Layer, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	epoch := time.Unix(0, 0)
	for _, directory := range parents(f.path) {
		if err := w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeDir, Name: directory + "/", Mode: 0o755, ModTime: epoch,
		}); err != nil {
			return nil, err
		}
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: f.path[1:], Mode: f.mode, Size: int64(len(f.content)), ModTime: epoch}
	if f.link != "" {
		header.Typeflag, header.Linkname = tar.TypeSymlink, f.link
	}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(f.content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(packed.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}

// parents returns the directories above an absolute path, the topmost first and
// without the leading slash.
func parents(name string) []string {
	directory := path.Dir(name)
	if directory == "/" {
		return nil
	}
	return append(parents(directory), directory[1:])
}
