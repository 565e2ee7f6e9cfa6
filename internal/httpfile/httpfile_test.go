// SPDX-License-Identifier: Apache-2.0

package httpfile

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/redirect"
	"github.com/podmeter/podmeter/internal/regular"
	"golang.org/x/sys/unix"
)

// A password is read again for each request, and one that has become a pipe fails it at
// once; once it is a file again all is well.
func TestClientWithPasswordFile(t *testing.T) {
	given := ""
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, given, _ = r.BasicAuth() }))
	t.Cleanup(s.Close)
	dir := t.TempDir()
	write(t, dir, "http.yml", "basic_auth: {username: a, password_file: password}")
	password := write(t, dir, "password", "first")
	client, err := Client(filepath.Join(dir, "http.yml"), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	ask := func() error {
		response, err := client.Get(s.URL)
		if err != nil {
			return err
		}
		return response.Body.Close()
	}
	if err := ask(); err != nil || given != "first" {
		t.Errorf("got %q, %v, want the password first", given, err)
	}
	if err := errors.Join(os.Remove(password), unix.Mkfifo(password, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := ask(); !errors.Is(err, regular.ErrNotRegular) || !strings.Contains(err.Error(), password) {
		t.Errorf("with a pipe: got %v, want that it is none", err)
	}
	if err := os.Remove(password); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "password", "second")
	if err := ask(); err != nil || given != "second" {
		t.Errorf("got %q, %v, want the password second", given, err)
	}
}

func TestClientErrors(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path string
		is         error
		text       string
	}{
		{"pipe", pipe, regular.ErrNotRegular, pipe},
		{"device", "/dev/zero", regular.ErrNotRegular, "/dev/zero"},
		{"a key that is a pipe", write(t, dir, "key.yml", "tls_config: {cert_file: cert, key_file: pipe}"), regular.ErrNotRegular, pipe},
		{"a CA that is a device", write(t, dir, "ca.yml", "tls_config: {ca_file: /dev/zero}"), regular.ErrNotRegular, "/dev/zero"},
		{"a header of a pipe", write(t, dir, "header.yml", "http_headers: {X-A: {files: [pipe]}}"), regular.ErrNotRegular, pipe},
		{"endless", write(t, dir, "endless.yml", strings.Repeat("#", regular.ConfigLimit+1)), regular.ErrTooLarge, "endless.yml"},
		{"unknown key", write(t, dir, "unknown.yml", "bearer: a"), nil, "unknown.yml"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Client(test.path, "test")
			if err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %v about %s", err, test.is, test.text)
			}
		})
	}
}

func TestClientRedirects(t *testing.T) {
	s := httptest.NewServer(http.RedirectHandler("http://192.0.2.1/", http.StatusTemporaryRedirect))
	t.Cleanup(s.Close)
	for _, test := range []struct {
		content string
		is      error
		status  int
	}{
		{"{}", redirect.ErrRefused, 0},
		{"follow_redirects: false", nil, http.StatusTemporaryRedirect},
	} {
		client, err := Client(write(t, t.TempDir(), "http.yml", test.content), "test")
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Get(s.URL)
		if !errors.Is(err, test.is) || test.is == nil && response.StatusCode != test.status {
			t.Errorf("%s: got %v, want %v or status %d", test.content, err, test.is, test.status)
		}
		if response != nil {
			response.Body.Close()
		}
	}
}

func write(t *testing.T, dir, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
