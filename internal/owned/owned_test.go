// SPDX-License-Identifier: Apache-2.0

package owned

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// somebody is a user that is not this one.
const somebody = 12345

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("another user's directories can be made by root alone")
	}
}

// A directory is this process's alone if nobody else can change it, a directory above it, or
// a link on the way.
func TestCheck(t *testing.T) {
	requireRoot(t)
	for _, test := range []struct {
		name, path string
		make       func(dir string) error
		want       string // what the error has, empty for none
		sticky     string // the same where a sticky one will do
	}{
		{"own", "a/b", func(dir string) error { return os.MkdirAll(dir+"/a/b", 0o755) }, "", ""},
		{"missing", "a/b", func(dir string) error { return nil }, "", ""},
		{"writable by all", "a", made("a", 0o777, 0, 0), "mode -rwxrwxrwx", "mode -rwxrwxrwx"},
		{"writable by a group", "a", made("a", 0o775, 0, somebody), "group 12345", "group 12345"},
		{"writable by root's group", "a", made("a", 0o775, 0, 0), "", ""},
		{"of another user", "a", made("a", 0o700, somebody, 0), "belongs to user 12345", "belongs to user 12345"},
		{"below one that all write", "a/b", made("a", 0o777, 0, 0), "mode -rwxrwxrwx", "mode -rwxrwxrwx"},
		{"below another user's", "a/b", made("a", 0o755, somebody, 0), "belongs to user 12345", "belongs to user 12345"},
		{"sticky", "a", made("a", 0o777|os.ModeSticky, 0, 0), "mode -rwxrwxrwx", ""},
		{"below a sticky one", "a/b", made("a", 0o777|os.ModeSticky, 0, 0), "", ""},
		{"another user's below a sticky one", "a/b", func(dir string) error {
			return errors.Join(made("a", 0o777|os.ModeSticky, 0, 0)(dir), made("a/b", 0o755, somebody, 0)(dir))
		}, "belongs to user 12345", "belongs to user 12345"},
		{"by an own link", "link", func(dir string) error {
			return errors.Join(made("a", 0o755, 0, 0)(dir), os.Symlink("../"+filepath.Base(dir)+"/a", dir+"/link"))
		}, "", ""},
		{"by a link to one that all write", "link", func(dir string) error {
			return errors.Join(made("a", 0o777, 0, 0)(dir), os.Symlink(dir+"/a", dir+"/link"))
		}, "mode -rwxrwxrwx", "mode -rwxrwxrwx"},
		{"by another user's link", "a/link", func(dir string) error {
			return errors.Join(made("a", 0o777|os.ModeSticky, 0, 0)(dir), os.Symlink("/etc", dir+"/a/link"), os.Lchown(dir+"/a/link", somebody, 0))
		}, "is a link of user 12345", "is a link of user 12345"},
		{"a circle", "link/a", func(dir string) error { return os.Symlink("link", dir+"/link") }, "too many levels", "too many levels"},
		{"a file", "a", func(dir string) error { return os.WriteFile(dir+"/a", nil, 0o600) }, "not a directory", "not a directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, test.make(dir))
			for _, check := range []struct {
				check func(string) error
				want  string
			}{{Check, test.want}, {CheckSticky, test.sticky}} {
				err := check.check(filepath.Join(dir, test.path))
				if (err == nil) != (check.want == "") || err != nil && !strings.Contains(err.Error(), check.want) {
					t.Errorf("got %v, want %q", err, check.want)
				}
			}
		})
	}
}

// made makes a directory of a mode and an owner.
func made(name string, mode os.FileMode, uid, gid int) func(dir string) error {
	return func(dir string) error {
		path := filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(path, 0o755), os.Chown(path, uid, gid), os.Chmod(path, mode))
	}
}

// A volume that all may write, as kubelets make them, is a container's own.
func TestCheckVolume(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0777,size=64k"); err != nil {
		t.Skip("nothing can be mounted:", err)
	}
	defer func() { must(t, unix.Unmount(dir, 0)) }()
	for _, path := range []string{dir, dir + "/state"} {
		if err := Check(path); err != nil {
			t.Errorf("%s: got %v, want it fine", path, err)
		}
	}
	must(t, os.Chmod(dir, 0o777|os.ModeSticky))
	if err := Check(dir); !errors.Is(err, ErrForeign) {
		t.Errorf("sticky, as /tmp is: got %v, want %v", err, ErrForeign)
	}
}

// What lies where a file is to be made goes, and is neither followed nor written through.
func TestWriteDoesNotFollow(t *testing.T) {
	dir, victim := filepath.Join(t.TempDir(), "own"), filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, []byte("precious"), 0o600))
	d, err := Open(dir, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for name, plant := range map[string]func(path string) error{
		"nothing":       func(string) error { return nil },
		"file":          func(path string) error { return os.WriteFile(path, []byte("left over, and longer"), 0o644) },
		"link":          func(path string) error { return os.Symlink(victim, path) },
		"dangling link": func(path string) error { return os.Symlink(victim+"2", path) },
		"hard link":     func(path string) error { return os.Link(victim, path) },
		"pipe":          func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			must(t, plant(dir+"/a.next"), plant(dir+"/a"))
			if err := d.Write("a", "a.next", []byte("new"), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := d.Read("a", 100); string(got) != "new" || err != nil {
				t.Errorf("got %q, %v, want new", got, err)
			}
			if info, err := os.Lstat(dir + "/a"); err != nil || info.Mode() != 0o600 {
				t.Errorf("got %v, %v, want a file of mode 0600", info, err)
			}
			if got, err := os.ReadFile(victim); string(got) != "precious" || err != nil {
				t.Errorf("another's file: got %q, %v, want it as it was", got, err)
			}
			if _, err := os.Lstat(victim + "2"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("got a file made where a link led")
			}
			must(t, d.Remove("a"))
		})
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	must(t, os.Symlink("/etc/hostname", dir+"/link"), unix.Mkfifo(dir+"/pipe", 0o600), os.Mkdir(dir+"/directory", 0o700),
		os.WriteFile(dir+"/large", make([]byte, 101), 0o600))
	for _, name := range []string{"link", "pipe", "directory", "large", "none", "../" + filepath.Base(dir) + "/large"} {
		if got, err := d.Read(name, 100); err == nil {
			t.Errorf("%s: got %d bytes, want an error", name, len(got))
		}
	}
	if err := d.Write("a", "directory", nil, 0o600); !errors.Is(err, unix.EISDIR) {
		t.Errorf("in the place of a directory: got %v, want %v", err, unix.EISDIR)
	}
}

// The directory that was opened is written, whatever comes to its path.
func TestDirectoryStaysItself(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "own")
	d, err := Open(dir, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	elsewhere := t.TempDir()
	must(t, os.Rename(dir, dir+"2"), os.Symlink(elsewhere, dir), d.Write("a", "a.next", []byte("x"), 0o600))
	if entries, err := os.ReadDir(elsewhere); len(entries) != 0 || err != nil {
		t.Errorf("got %v, %v in another directory, want nothing", entries, err)
	}
	if _, err := os.Stat(dir + "2/a"); err != nil {
		t.Error(err)
	}
}
