// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/flows/geo/demodb"
	"github.com/podmeter/podmeter/internal/redirect"
)

// zeros are so many bytes.
type zeros int64

// Read implements io.Reader.
func (z *zeros) Read(b []byte) (int, error) {
	if *z == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), int64(*z))
	clear(b[:n])
	*z -= zeros(n)
	return int(n), nil
}

// archive is one with zeros as the wanted files' neighbours.
func archive(t *testing.T, wanted string, sizes ...int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, size := range sizes {
		content := zeros(size)
		err := w.WriteHeader(&tar.Header{Name: "package/other", Size: size, Mode: 0o644})
		if _, copyErr := io.Copy(w, &content); err != nil || copyErr != nil {
			t.Fatal(err, copyErr)
		}
	}
	err = w.WriteHeader(&tar.Header{Name: wanted, Size: 1, Mode: 0o644})
	if _, writeErr := w.Write([]byte("x")); err != nil || writeErr != nil {
		t.Fatal(err, writeErr)
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What an archive unpacks to is bounded in all: files that are not wanted count, and the time
// that they take is the fetch's.
func TestUnpackIsBounded(t *testing.T) {
	const wanted = "package/wanted"
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name  string
		ctx   context.Context
		sizes []int64
		is    error
		text  string
	}{
		{"small", t.Context(), []int64{1 << 10}, nil, ""},
		{"one that is not wanted", t.Context(), []int64{9 << 20}, errTooLarge, ""},
		{"several", t.Context(), []int64{3 << 20, 3 << 20, 3 << 20}, errTooLarge, ""},
		{"many", t.Context(), make([]int64, maxMembers), nil, "among its first"},
		{"time is over", ended, []int64{1 << 20}, context.Canceled, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			f := &fetcher{maxSize: 8 << 20}
			err := f.unpack(test.ctx, &out, archive(t, wanted, test.sizes...), wanted)
			switch {
			case test.is != nil && !errors.Is(err, test.is), test.text != "" && (err == nil || !strings.Contains(err.Error(), test.text)):
				t.Errorf("got %v, want %v%s", err, test.is, test.text)
			case test.is == nil && test.text == "" && (err != nil || out.String() != "x"):
				t.Errorf("got %q, %v, want x", &out, err)
			}
		})
	}
}

// A database that unpacks to more than any has is refused, and nothing is left of it.
func TestGzipIsBounded(t *testing.T) {
	s := newServer(t)
	content := zeros(9 << 20)
	plain, err := io.ReadAll(&content)
	if err != nil {
		t.Fatal(err)
	}
	s.files["/dbip/dbip-country-lite-2030-03.mmdb.gz"] = zip(t, plain)
	f := fetcherOf(t, s, true)
	f.maxSize = 8 << 20
	if err := f.run(t.Context()); !errors.Is(err, errTooLarge) {
		t.Errorf("got %v, want %v", err, errTooLarge)
	}
	if left := files(t, f.config.Dir); len(left) != 0 {
		t.Errorf("got files %q, want none", left)
	}
}

// What was asked for by https does not come by http, whoever says so.
func TestFetchIsNotLedToHTTP(t *testing.T) {
	plain := newServer(t)
	for _, path := range []string{"/dbip-country-lite-2030-03.mmdb.gz", "/dbip-country-lite-2030-02.mmdb.gz"} {
		plain.files[path] = zip(t, demodb.City())
	}
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusFound)
	}))
	t.Cleanup(secure.Close)
	f := fetcherOf(t, plain, true)
	f.config.Mirror = secure.URL
	f.client = secure.Client()
	f.client.CheckRedirect = redirect.Download
	if err := f.run(t.Context()); !errors.Is(err, redirect.ErrRefused) || len(plain.asked) != 0 {
		t.Errorf("got %v, asked %q of the plain server, want a refused redirect and nothing", err, plain.asked)
	}
}

// The fetcher of the command has the policy of the tests'.
func TestFetcherRefusesRedirects(t *testing.T) {
	f := newFetcher(Defaults(), slog.New(slog.DiscardHandler))
	from, to := httptest.NewRequest("GET", "https://a.example/", nil), httptest.NewRequest("GET", "http://a.example/", nil)
	to.Response = &http.Response{StatusCode: http.StatusFound}
	if f.client.CheckRedirect == nil || !errors.Is(f.client.CheckRedirect(to, []*http.Request{from}), redirect.ErrRefused) {
		t.Error("got a client that follows a redirect to http")
	}
}
