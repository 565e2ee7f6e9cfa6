// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

const testName = "registry.example:5000/podmeter/podmeter:1.2.3"

func testOptions() options {
	return options{
		name: testName, version: "1.2.3", revision: "0123abc", source: "https://source.example", binaryPath: "/podmeter", link: "/usr/local/bin/podmeter-link", created: time.Unix(1_700_000_000, 0), limit: 1 << 20,
		binaries: []binaryOf{{"amd64", []byte("for amd64")}, {"arm64", []byte("for arm64")}},
	}
}

// writeTest writes the archive of the test's image.
func writeTest(t *testing.T) string {
	t.Helper()
	index, _, err := newIndex(testOptions())
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "image.tar")
	if err := writeArchive(out, testName, index); err != nil {
		t.Fatal(err)
	}
	return out
}

// readTest unpacks an archive and returns the descriptor of what is named in it.
func readTest(t *testing.T, archive string) (v1.Descriptor, v1.ImageIndex) {
	t.Helper()
	directory := t.TempDir()
	content, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range untar(t, bytes.NewReader(content)) {
		path := filepath.Join(directory, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := layout.ImageIndexFromPath(directory)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := all.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("got %+v, %v, want one manifest", manifest, err)
	}
	index, err := all.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Manifests[0], index
}

func untar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeSymlink {
			files[header.Name] = []byte("-> " + header.Linkname)
		}
	}
}

func TestArchiveHoldsAnImageForEachArchitecture(t *testing.T) {
	named, index := readTest(t, writeTest(t))
	if got := named.Annotations[containerdName]; got != testName {
		t.Errorf("%s: got %q, want %q", containerdName, got, testName)
	}
	if got := named.Annotations[ociReference]; got != "1.2.3" {
		t.Errorf("%s: got %q, want the tag", ociReference, got)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 2 {
		t.Fatalf("got %+v, %v, want two images", manifest, err)
	}
	for n, want := range testOptions().binaries {
		d := manifest.Manifests[n]
		if d.Platform == nil || d.Platform.OS != "linux" || d.Platform.Architecture != want.architecture {
			t.Errorf("platform: got %v, want linux/%s", d.Platform, want.architecture)
		}
		image, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		checkImage(t, image, want)
	}
}

func checkImage(t *testing.T, image v1.Image, want binaryOf) {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != want.architecture || len(config.Config.Entrypoint) != 1 || config.Config.Entrypoint[0] != "/podmeter" {
		t.Errorf("got architecture %s and entry point %q, want %s and /podmeter", config.Architecture, config.Config.Entrypoint, want.architecture)
	}
	for key, value := range map[string]string{"version": "1.2.3", "revision": "0123abc", "title": "podmeter", "source": "https://source.example"} {
		if got := config.Config.Labels["org.opencontainers.image."+key]; got != value {
			t.Errorf("label %s: got %q, want %q", key, got, value)
		}
	}
	content := mutate.Extract(image)
	defer content.Close()
	files := untar(t, content)
	if got := files["podmeter"]; !bytes.Equal(got, want.content) {
		t.Errorf("binary: got %q, want %q", got, want.content)
	}
	if got := string(files["usr/local/bin/podmeter-link"]); got != "-> /podmeter" {
		t.Errorf("link: got %q, want one to the binary", got)
	}
	if !bytes.Equal(files["etc/ssl/certs/ca-certificates.crt"], caCertificates()) {
		t.Errorf("certificates: got others than the bundle's in %d files", len(files))
	}
}

func TestSameSourceGivesSameBytes(t *testing.T) {
	first, err := os.ReadFile(writeTest(t))
	if err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(writeTest(t))
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("got another archive of %d bytes, %v, want the same", len(again), err)
	}
}

func TestLimit(t *testing.T) {
	o := testOptions()
	o.limit = int64(len(caCertificates()) + len(o.binaries[0].content))
	if _, _, err := newIndex(o); err != nil {
		t.Errorf("at the limit: got %v, want none", err)
	}
	o.limit--
	if _, _, err := newIndex(o); !errors.Is(err, errTooLarge) {
		t.Errorf("above the limit: got %v, want %v", err, errTooLarge)
	}
}

func TestCertificatesAreRoots(t *testing.T) {
	count := 0
	for block, rest := pem.Decode(caCertificates()); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !certificate.IsCA {
			t.Errorf("certificate %d: got CA %v, %v, want a CA", count, certificate != nil && certificate.IsCA, err)
		}
		count++
	}
	if count < 100 {
		t.Errorf("got %d certificates, want the more than 100 that browsers trust", count)
	}
}

func TestTag(t *testing.T) {
	for name, want := range map[string]string{
		testName: "1.2.3", "podmeter": "latest", "registry.example:5000/podmeter": "latest", "podmeter:edge": "edge",
	} {
		if got := tag(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
