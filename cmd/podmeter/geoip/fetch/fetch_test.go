// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows/geo"
	"github.com/podmeter/podmeter/flows/geo/demodb"
	"github.com/podmeter/podmeter/internal/owned"
	"github.com/podmeter/podmeter/internal/redirect"
)

// noon is the tests' now: on a 31st, the month before which has none.
var noon = time.Date(2030, 3, 31, 12, 0, 0, 0, time.UTC)

// server has files, by path, and keeps what it was asked for.
type server struct {
	*httptest.Server
	files map[string][]byte
	asked []string
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{files: make(map[string][]byte)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked = append(s.asked, r.URL.EscapedPath())
		if content, ok := s.files[r.URL.EscapedPath()]; ok {
			w.Write(content) // who does not wait for it is a test
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func zip(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pack makes an archive as npm does, of one file besides the package's own.
func pack(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, file := range []struct {
		name    string
		content []byte
	}{{"package/package.json", []byte("{}")}, {name, content}} {
		if err := w.WriteHeader(&tar.Header{Name: file.name, Size: int64(len(file.content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(file.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return zip(t, b.Bytes())
}

// fetcherOf asks the server as a mirror, or else as the registry, DB-IP being away.
func fetcherOf(t *testing.T, s *server, mirror bool) *fetcher {
	t.Helper()
	config := Defaults()
	config.Dir = filepath.Join(t.TempDir(), "geoip")
	f := &fetcher{config: config, log: slog.New(slog.DiscardHandler), now: func() time.Time { return noon }, registry: s.URL + "/", maxSize: maxSize}
	if mirror {
		f.config.Mirror = s.URL + "/dbip"
	}
	f.client = &http.Client{Transport: away{}, CheckRedirect: redirect.Download}
	return f
}

// away is an internet without DB-IP.
type away struct{}

func (away) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Hostname() != "127.0.0.1" {
		return nil, fmt.Errorf("no route to %s", r.URL.Hostname())
	}
	return http.DefaultTransport.RoundTrip(r)
}

// place is where the demo's database says that an address is, by a file of a folder.
func place(t *testing.T, path string) string {
	t.Helper()
	d, err := geo.Open(geo.Options{Paths: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return d.Place(netip.MustParseAddr("198.51.100.1")).Country + d.Place(netip.MustParseAddr("198.51.100.1")).ASN
}

// files are the names in a folder.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestFetchFromMirror(t *testing.T) {
	s := newServer(t)
	s.files["/dbip/dbip-country-lite-2030-02.mmdb.gz"] = zip(t, demodb.City())
	s.files["/dbip/dbip-asn-lite-2030-03.mmdb.gz"] = zip(t, demodb.ASN())
	f := fetcherOf(t, s, true)
	f.config.Databases = []string{"asn", "country"}
	if err := f.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"dbip-asn-lite.mmdb", "dbip-country-lite.mmdb", "dbip-lite.txt"}
	if diff := cmp.Diff(want, files(t, f.config.Dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	asked := []string{"/dbip/dbip-country-lite-2030-03.mmdb.gz", "/dbip/dbip-country-lite-2030-02.mmdb.gz", "/dbip/dbip-asn-lite-2030-03.mmdb.gz"}
	if diff := cmp.Diff(asked, s.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	got, err := os.ReadFile(filepath.Join(f.config.Dir, attributionFile))
	if err != nil || !strings.Contains(string(got), "IP Geolocation by DB-IP (https://db-ip.com)") {
		t.Errorf("got %q, %v, want DB-IP named", got, err)
	}
}

func TestFetchFromRegistry(t *testing.T) {
	about := func(url string, archive []byte) []byte {
		sum := sha512.Sum512(archive)
		return fmt.Appendf(nil, `{"dist": {"tarball": %q, "integrity": "sha512-%s"}}`, url, base64.StdEncoding.EncodeToString(sum[:]))
	}
	const member = "package/dbip-country.mmdb"
	good := pack(t, member, demodb.City())
	for _, test := range []struct {
		name, err string
		archive   []byte
		about     func(url string, archive []byte) []byte
	}{
		{"good", "", good, about},
		{"another file", "it has no " + member, pack(t, "package/city.mmdb", demodb.City()), about},
		{"no database", "not a usable MaxMind DB", pack(t, member, []byte("<html>")), about},
		{"other bytes", "is damaged", good, func(url string, _ []byte) []byte { return about(url, []byte("x")) }},
		{"no sum", "is damaged", good, func(url string, _ []byte) []byte { return fmt.Appendf(nil, `{"dist": {"tarball": %q}}`, url) }},
		{"no JSON", "read what http", good, func(string, []byte) []byte { return []byte("<html>") }},
		{"elsewhere, unprotected", "no https URL", good, func(_ string, archive []byte) []byte { return about("http://198.51.100.1/a.tgz", archive) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t)
			s.files["/a.tgz"] = test.archive
			s.files["/@ip-location-db%2Fdbip-country-mmdb/latest"] = test.about(s.URL+"/a.tgz", test.archive)
			f := fetcherOf(t, s, false)
			err := f.run(t.Context())
			if test.err == "" {
				if got := place(t, filepath.Join(f.config.Dir, "dbip-country-lite.mmdb")); err != nil || got == "" {
					t.Errorf("got %v, a place %q, want the demo's", err, got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), "no route to download.db-ip.com") {
				t.Errorf("got %v, want why neither has it: %s", err, test.err)
			}
			if diff := cmp.Diff([]string(nil), files(t, f.config.Dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

// damaged returns a database that opens and has a wrong byte between its search tree and its
// data.
func damaged(database []byte) []byte {
	database = bytes.Clone(database)
	end := bytes.Index(database, make([]byte, 16))
	database[end+15] ^= 1
	return database
}

// What is there goes only for something better.
func TestFetchKeeps(t *testing.T) {
	for _, test := range []struct {
		name    string
		there   []byte
		age     time.Duration
		answer  []byte // nil for none
		fetched bool   // the new one is there
		asked   int
		err     string
	}{
		{name: "recent", there: demodb.ASN(), age: time.Hour, answer: demodb.City(), fetched: false, asked: 0},
		{name: "old", there: demodb.ASN(), age: 8 * 24 * time.Hour, answer: demodb.City(), fetched: true, asked: 1},
		{name: "old, and nothing new", there: demodb.ASN(), age: 8 * 24 * time.Hour, asked: 2},
		{name: "old, and the new one is broken", there: demodb.ASN(), age: 8 * 24 * time.Hour, answer: demodb.City()[:1000], asked: 2},
		{name: "old, and the new one is damaged", there: demodb.ASN(), age: 8 * 24 * time.Hour, answer: damaged(demodb.City()), asked: 2},
		{name: "recent and broken", there: []byte("x"), age: time.Hour, answer: demodb.City(), fetched: true, asked: 1},
		{name: "broken, and nothing new", there: []byte("x"), age: time.Hour, asked: 2, err: "404 Not Found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t)
			if test.answer != nil {
				s.files["/dbip/dbip-country-lite-2030-03.mmdb.gz"] = zip(t, test.answer)
			}
			f := fetcherOf(t, s, true)
			if err := os.MkdirAll(f.config.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(f.config.Dir, "dbip-country-lite.mmdb")
			if err := os.WriteFile(path, test.there, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, noon, noon.Add(-test.age)); err != nil {
				t.Fatal(err)
			}
			if err := f.run(t.Context()); (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, want %q", err, test.err)
			}
			want, names := test.there, []string{"dbip-country-lite.mmdb"}
			if test.fetched {
				want, names = demodb.City(), append(names, attributionFile)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
			}
			if len(s.asked) != test.asked {
				t.Errorf("asked %q, want %d", s.asked, test.asked)
			}
			if diff := cmp.Diff(names, files(t, f.config.Dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

// A server that says nothing more is given up.
func TestFetchTimesOut(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "\x1f\x8b")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	f := fetcherOf(t, &server{Server: s}, true)
	f.config.Timeout = 50 * time.Millisecond
	if err := f.run(t.Context()); err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("got %v, want that the time is over", err)
	}
}

// Who is started next can do without a database: neither a server that says nothing more
// nor one that has nothing makes the fetch fail, and the time for all is bounded.
func TestFetchGivesUp(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	t.Cleanup(silent.Close)
	for name, s := range map[string]*server{"silent": {Server: silent}, "empty": newServer(t)} {
		t.Run(name, func(t *testing.T) {
			f := fetcherOf(t, s, true)
			var log strings.Builder
			f.log, f.config.GiveUp = slog.New(slog.NewTextHandler(&log, nil)), 50*time.Millisecond
			if err := f.runWithin(t.Context()); err != nil || !strings.Contains(log.String(), "there will be no places") {
				t.Errorf("got %v, log %q, want no error, and that it is said", err, &log)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if err := f.runWithin(ended); err == nil {
				t.Error("interrupted: got no error")
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		want   string // what the error has
	}{
		"defaults":         {func(*Config) {}, ""},
		"all":              {func(c *Config) { c.Databases = Names() }, ""},
		"mirror":           {func(c *Config) { c.Mirror = "https://mirror.example.com/dbip" }, ""},
		"mirror, no URL":   {func(c *Config) { c.Mirror = "mirror.example.com" }, "--mirror: a URL is expected"},
		"unknown database": {func(c *Config) { c.Databases = []string{"cities"} }, `--database "cities": country, city, asn are known`},
		"no database":      {func(c *Config) { c.Databases = nil }, "--database is empty"},
		"no folder":        {func(c *Config) { c.Dir = "" }, "--dir is empty"},
		"negative age":     {func(c *Config) { c.MaxAge = -1 }, "--max-age"},
		"no time":          {func(c *Config) { c.Timeout = 0 }, "--timeout"},
		"unknown format":   {func(c *Config) { c.LogFormat = "xml" }, `--log-format "xml"`},
	} {
		t.Run(name, func(t *testing.T) {
			c := Defaults()
			test.change(&c)
			err := c.Validate()
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// A mirror's password is neither logged nor in an error.
func TestFetchKeepsPasswords(t *testing.T) {
	s := newServer(t)
	f := fetcherOf(t, s, true)
	f.config.Mirror = strings.Replace(f.config.Mirror, "http://", "http://user:hunter2@", 1)
	var log bytes.Buffer
	f.log = slog.New(slog.NewTextHandler(&log, nil))
	err := f.run(t.Context())
	if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(log.String(), "hunter2") || len(s.asked) != 2 {
		t.Errorf("got %v, asked %q and logged\n%s\nwant no password", err, s.asked, &log)
	}
}

// Links where files are written lead nowhere, and a folder of others is refused.
func TestFetchDoesNotFollow(t *testing.T) {
	s := newServer(t)
	s.files["/dbip/dbip-country-lite-2030-03.mmdb.gz"] = zip(t, demodb.City())
	f := fetcherOf(t, s, true)
	path, victim := filepath.Join(f.config.Dir, "dbip-country-lite.mmdb"), filepath.Join(t.TempDir(), "victim")
	for _, err := range []error{
		os.MkdirAll(f.config.Dir, 0o755), os.WriteFile(victim, []byte("precious"), 0o600),
		os.Symlink(victim, path+".part"), os.Symlink(victim, filepath.Join(f.config.Dir, attributionFile)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.run(t.Context()); err != nil || place(t, path) == "" {
		t.Errorf("got %v, want the database", err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("another's file: got %q, %v, want it as it was", got, err)
	}
	if err := errors.Join(os.Remove(path), os.Chmod(f.config.Dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	if err := f.run(t.Context()); !errors.Is(err, owned.ErrForeign) {
		t.Errorf("a folder that all write: got %v, want %v", err, owned.ErrForeign)
	}
}

// A folder in which nothing can be written will do, as long as what is in it will.
func TestFetchIntoReadOnlyFolder(t *testing.T) {
	s := newServer(t)
	s.files["/dbip/dbip-country-lite-2030-03.mmdb.gz"] = zip(t, demodb.City())
	f := fetcherOf(t, s, true)
	if err := f.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Root writes where it may not: another folder of that name is in its way instead.
	path := filepath.Join(f.config.Dir, "dbip-country-lite.mmdb")
	if err := os.Mkdir(path+".part", 0o755); err != nil {
		t.Fatal(err)
	}
	f.config.MaxAge = 0
	if err := f.run(t.Context()); err != nil || place(t, path) == "" {
		t.Errorf("got %v, want the file that is there", err)
	}
}
