// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxSize bounds what is read of an answer and what comes of unpacking it, in bytes.
// The largest of the databases has some 150 MB.
const maxSize = 1 << 30

// get asks for a URL. Who has no error closes the body.
func (f *fetcher) get(ctx context.Context, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "podmeter")
	response, err := f.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close() // of which nothing is wanted
		return nil, fmt.Errorf("get %q: the answer is %s", redacted(url), response.Status)
	}
	return http.MaxBytesReader(nil, response.Body, maxSize), nil
}

// readGzip writes what a compressed file holds.
func (f *fetcher) readGzip(ctx context.Context, w io.Writer, url string) (err error) {
	body, err := f.get(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	content, err := gzip.NewReader(body)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", redacted(url), err)
	}
	if err := copyAll(w, content); err != nil {
		return fmt.Errorf("unpack %s: %w", redacted(url), err)
	}
	return nil
}

// manifest is what the npm registry says of a package.
type manifest struct {
	Dist struct {
		Tarball   string `json:"tarball"`
		Integrity string `json:"integrity"`
	} `json:"dist"`
}

// readPackage writes a member of the newest version of an npm package, of which the
// registry tells at url. Nothing is written of a package that is not as the registry
// says.
func (f *fetcher) readPackage(ctx context.Context, w io.Writer, url, member string) error {
	content, err := f.readAll(ctx, url)
	if err != nil {
		return err
	}
	var about manifest
	if err := json.Unmarshal(content, &about); err != nil {
		return fmt.Errorf("read what %s says: %w", url, err)
	}
	archive, err := f.readAll(ctx, about.Dist.Tarball)
	if err != nil {
		return err
	}
	sum := sha512.Sum512(archive)
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum[:]); got != about.Dist.Integrity {
		return fmt.Errorf("%s is damaged: got %s, want %s", about.Dist.Tarball, got, about.Dist.Integrity)
	}
	if err := unpack(w, archive, member); err != nil {
		return fmt.Errorf("unpack %s: %w", about.Dist.Tarball, err)
	}
	return nil
}

func (f *fetcher) readAll(ctx context.Context, url string) (content []byte, err error) {
	if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, f.registry) {
		return nil, fmt.Errorf("%q is no https URL", url)
	}
	body, err := f.get(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	return io.ReadAll(body)
}

// unpack writes a member of a compressed tar archive.
func unpack(w io.Writer, archive []byte, member string) error {
	content, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return err
	}
	for members := tar.NewReader(content); ; {
		header, err := members.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("it has no %s", member)
		}
		if err != nil {
			return err
		}
		if header.Name == member {
			return copyAll(w, members)
		}
	}
}

// copyAll copies to the end, unless there is more than any database has.
func copyAll(w io.Writer, r io.Reader) error {
	n, err := io.Copy(w, io.LimitReader(r, maxSize+1))
	if err == nil && n > maxSize {
		err = fmt.Errorf("it has more than %d bytes", maxSize)
	}
	return err
}
