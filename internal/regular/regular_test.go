// SPDX-License-Identifier: Apache-2.0

package regular

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What would hang or never end is refused by name; a link to a file is one.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, in("file"), bytes.Repeat([]byte("x"), 100))
	write(t, in("empty"), nil)
	write(t, in("large"), bytes.Repeat([]byte("x"), 101))
	write(t, in("huge"), nil)
	l, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, err := range []error{
		os.Truncate(in("huge"), 1<<40), unix.Mkfifo(in("pipe"), 0o600), os.Mkdir(in("..data"), 0o700),
		os.Symlink("../file", in("..data/key")), os.Symlink("..data/key", in("link")), os.Symlink("pipe", in("link-to-pipe")),
		os.Symlink("circle", in("circle")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		path string
		size int
		is   error
		text string
	}{
		{in("file"), 100, nil, ""},
		{in("empty"), 0, nil, ""},
		{in("link"), 100, nil, ""},
		{"/proc/self/comm", -1, nil, ""},
		{in("large"), 0, ErrTooLarge, "101 B or more, at most 100 B"},
		{in("huge"), 0, ErrTooLarge, "1.0 TiB or more"},
		{"/proc/kallsyms", 0, ErrTooLarge, "101 B or more"},
		{in("pipe"), 0, ErrNotRegular, "a pipe"},
		{in("link-to-pipe"), 0, ErrNotRegular, "a pipe"},
		{in("socket"), 0, ErrNotRegular, "a socket"},
		{dir, 0, ErrNotRegular, "a directory"},
		{"/dev/zero", 0, ErrNotRegular, "a device"},
		{"/dev/stdin/x", 0, unix.ENOTDIR, "/dev/stdin/x"},
		{in("circle"), 0, unix.ELOOP, "circle"},
		{in("none"), 0, fs.ErrNotExist, "none"},
	} {
		t.Run(filepath.Base(test.path), func(t *testing.T) {
			got, err := Read(test.path, 100)
			switch {
			case !errors.Is(err, test.is) || test.is == nil && err != nil:
				t.Errorf("got %v, want %v", err, test.is)
			case err != nil && (!strings.Contains(err.Error(), test.text) || strings.Count(err.Error(), test.path) != 1):
				t.Errorf("got %v, want %q and the path once", err, test.text)
			case err == nil && test.size >= 0 && len(got) != test.size:
				t.Errorf("got %d bytes, want %d", len(got), test.size)
			}
			if test.size < 0 || errors.Is(test.is, ErrTooLarge) && test.path == "/proc/kallsyms" {
				return // its size is told by reading alone
			}
			if err := Check(test.path, 100); !errors.Is(err, test.is) {
				t.Errorf("check: got %v, want %v", err, test.is)
			}
		})
	}
}

// What says that it is regular, as some files of the kernel do, and has nothing to be read
// yet, is not waited for.
func TestReadDoesNotWait(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	raw, err := r.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("a"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(nonblocking{raw}); string(got) != "a" || !errors.Is(err, ErrNotRegular) {
		t.Errorf("got %q, %v, want a and %v", got, err, ErrNotRegular)
	}
}

// What is a link itself is refused where somebody else may have made it, and what is refused
// is described, so that it is known when it changes.
func TestReadUnlinked(t *testing.T) {
	dir := t.TempDir()
	file, link, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	write(t, file, bytes.Repeat([]byte("x"), 100))
	if err := errors.Join(os.Symlink("file", link), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path  string
		limit int64
		is    error
		text  string
		mode  fs.FileMode
	}{
		{file, 100, nil, "", 0},
		{file, 99, ErrTooLarge, "100 B or more", 0},
		{link, 100, ErrNotRegular, "a symbolic link", fs.ModeSymlink},
		{pipe, 100, ErrNotRegular, "a pipe", fs.ModeNamedPipe},
	} {
		content, info, err := ReadUnlinked(test.path, test.limit)
		if !errors.Is(err, test.is) || err != nil && !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: got %v, want %v with %q", test.path, err, test.is, test.text)
		}
		if (err == nil) != (len(content) == 100) {
			t.Errorf("%s: got %d bytes and %v", test.path, len(content), err)
		}
		if info == nil || info.Mode().Type() != test.mode {
			t.Errorf("%s: got %v of it, want that its type is %v", test.path, info, test.mode)
		}
	}
	if _, info, err := ReadUnlinked(filepath.Join(dir, "none"), 100); info != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: got %v, %v, want %v alone", info, err, fs.ErrNotExist)
	}
}

func TestNamedBy(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "password"), []byte("x"))
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, content string
		want          []string // what the error has, once each
	}{
		{"good", "basic_auth: {username: a, password_file: password}\ntls_config: {ca_file: ''}", nil},
		{"no YAML", "{", nil},
		{"no files", "basic_auth: {username: a, password: pipe}", nil},
		{"deep", "a: [{tls_server_config: {key_file: pipe, cert_file: /dev/zero}}]", []string{dir + "/pipe", "/dev/zero"}},
		{"headers", "http_headers: {X-Token: {files: [password, pipe]}}", []string{dir + "/pipe"}},
		{"by an alias", "a: &a {ca_file: pipe}\ntls_config: *a", []string{dir + "/pipe"}},
		{"an alias", "basic_auth: {username: &a pipe, password_file: *a}", []string{dir + "/pipe"}},
		{"a list that is an alias", "http_headers: {X-Token: {values: &a [pipe], files: *a}}", []string{dir + "/pipe"}},
		{"a list of aliases", "http_headers: {X-Token: {values: [&a pipe], files: [*a]}}", []string{dir + "/pipe"}},
		{"an alias as its key", "{username: &a key_file, tls_config: {*a : pipe}}", []string{dir + "/pipe"}},
		{"in base64", "key_file: !!binary cGlwZQ==", []string{dir + "/pipe"}},
		{"an alias of itself", "a: &a [*a]\nkey_file: *a", nil},
		{"missing", "authorization: {credentials_file: none}", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := NamedBy([]byte(test.content), dir).Check()
			if (err == nil) != (test.want == nil) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			for _, want := range test.want {
				if strings.Count(err.Error(), want) != 1 {
					t.Errorf("got %v, want %s in it once", err, want)
				}
			}
		})
	}
}

// A list that aliases repeat is no longer than the file.
func TestRepeatedListOfPaths(t *testing.T) {
	content := "a: {files: &a [" + strings.Repeat("x,", 1000) + "x]}\nb: [" + strings.Repeat("{files: *a},", 1000) + "]"
	if got := len(NamedBy([]byte(content), "/")); got != 1001 {
		t.Errorf("got %d paths, want 1001", got)
	}
}

// A key in the place of a key's path is not repeated.
func TestContentInsteadOfAPath(t *testing.T) {
	err := NamedBy([]byte("key_file: |\n  -----BEGIN PRIVATE KEY-----\n  MIGH\n"), t.TempDir()).Check()
	if err == nil || strings.Contains(err.Error(), "MIGH") || !strings.Contains(err.Error(), "a path is expected") {
		t.Errorf("got %v, want that a path is expected", err)
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
