// SPDX-License-Identifier: Apache-2.0

// Command image packs the static binaries of podmeter, or of another program, one for
// each architecture, into one image without a container engine: an OCI layout in a tar archive,
// which containerd, kind, skopeo and Docker from 25 on take. The same binaries
// give the same bytes.
//
// Usage: image -name ghcr.io/podmeter/podmeter:1.2.3 -out image.tar amd64=bin/podmeter-amd64 …
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

// defaultLimit is the most bytes that the files of one architecture's image may
// have, unpacked.
const defaultLimit = 60_000_000

func main() { os.Exit(run()) }

func run() int {
	var o options
	var created int64
	flag.StringVar(&o.name, "name", "", "the image's `name`, with a tag")
	flag.StringVar(&o.binaryPath, "path", "/podmeter", "where the binary is in the image, its entry `point`")
	flag.StringVar(&o.link, "link", "", "another `path` of the binary in the image, a symbolic link")
	flag.StringVar(&o.source, "source", "https://github.com/podmeter/podmeter", "the `address` of the source in its labels")
	flag.StringVar(&o.licenses, "licenses", "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)", "the `licenses` in its labels")
	flag.StringVar(&o.version, "version", "", "the `version` in its labels")
	flag.StringVar(&o.revision, "revision", "", "the `commit` in its labels")
	flag.Int64Var(&created, "created", 0, "when it was created, in `seconds` since 1970")
	flag.Int64Var(&o.limit, "limit", defaultLimit, "the most `bytes` of one architecture's files")
	out := flag.String("out", "", "the `archive` to write")
	certificates := flag.String("certificates", "", "write only the CA certificates to this `file`")
	flag.Parse()
	o.created = time.Unix(created, 0).UTC()
	err := errors.New("-out or -certificates is missing")
	switch {
	case *certificates != "":
		err = os.WriteFile(*certificates, caCertificates(), 0o644)
	case *out != "":
		err = build(*out, o, flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		return 1
	}
	return 0
}

// build writes the archive of the image that the options and binaries
// (architecture=path) make, and prints its sizes.
func build(out string, o options, binaries []string) error {
	for _, binary := range binaries {
		architecture, path, ok := strings.Cut(binary, "=")
		if !ok {
			return fmt.Errorf("read argument %q: architecture=path is expected", binary)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read binary: %w", err)
		}
		o.binaries = append(o.binaries, binaryOf{architecture: architecture, content: content})
	}
	index, sizes, err := newIndex(o)
	if err != nil {
		return err
	}
	if err := writeArchive(out, o.name, index); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	fmt.Print(summary(out, o, sizes))
	return nil
}

// summary says for which nodes the archive is, and how large its images are.
func summary(out string, o options, sizes []size) string {
	var lines strings.Builder
	var platforms []string
	for _, s := range sizes {
		platforms = append(platforms, "linux/"+s.architecture)
		fmt.Fprintf(&lines, "  linux/%s: %.1f MB, %.1f MB compressed, of at most %.0f MB\n",
			s.architecture, megabytes(s.files), megabytes(s.compressed), megabytes(o.limit))
	}
	nodes := strings.Join(platforms, " and ")
	if len(platforms) == 1 {
		nodes += " alone"
	}
	return fmt.Sprintf("%s: %s, for nodes of %s\n%s", out, o.name, nodes, &lines)
}

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }
