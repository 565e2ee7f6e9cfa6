// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/owned"
	"golang.org/x/sys/unix"
)

// rest returns what a spool has, and takes it out.
func rest(t *testing.T, s *spool) (all []string) {
	t.Helper()
	for {
		number, request, ok, err := s.first()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return all
		}
		all = append(all, string(request))
		if err := s.remove(number); err != nil {
			t.Fatal(err)
		}
	}
}

// A spool keeps its order, also across processes, and what was not written whole is not
// there.
func TestSpool(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "spool")
	s, err := openSpool(folder, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range []string{"one", "two", "three"} {
		if dropped, err := s.put([]byte(request)); dropped != 0 || err != nil {
			t.Fatalf("got %d dropped, %v", dropped, err)
		}
	}
	number, _, _, _ := s.first()
	if err := s.remove(number); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, spoolName(99)+".part"), []byte("ha"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := openSpool(folder, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-again.arrived:
	default:
		t.Error("nobody was told that something waits")
	}
	if got := again.size(); got != int64(len("two")+len("three")) {
		t.Errorf("got %d bytes", got)
	}
	if _, err := again.put([]byte("four")); err != nil {
		t.Fatal(err)
	}
	if got, want := rest(t, again), []string{"two", "three", "four"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 0 {
		t.Errorf("got %v, %v, want an empty folder", entries, err)
	}
}

// A full spool gives up the eldest, and never the newest.
func TestSpoolIsBounded(t *testing.T) {
	s, err := openSpool(t.TempDir(), 10)
	if err != nil {
		t.Fatal(err)
	}
	dropped := 0
	for _, request := range []string{"aaaa", "bbbb", "cccc", "dddddddddddddddd"} {
		n, err := s.put([]byte(request))
		if err != nil {
			t.Fatal(err)
		}
		dropped += n
	}
	if got, want := rest(t, s), []string{"dddddddddddddddd"}; !slices.Equal(got, want) || dropped != 3 {
		t.Errorf("got %q and %d dropped, want %q and 3", got, dropped, want)
	}
	// What had to go while it was being sent is not missed.
	if err := s.remove(0); err != nil {
		t.Error(err)
	}
}

// A link where a request is to be written, or lies, leads nowhere, and a folder of others is
// refused.
func TestSpoolDoesNotFollow(t *testing.T) {
	folder, victim := filepath.Join(t.TempDir(), "spool"), filepath.Join(t.TempDir(), "victim")
	s, err := openSpool(folder, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink(victim, filepath.Join(folder, spoolName(0)+".part")),
		os.Symlink(victim, filepath.Join(folder, spoolName(1))),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.put([]byte("one")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("another's file: got %q, %v, want it as it was", got, err)
	}
	again, err := openSpool(folder, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.remove(0); err != nil {
		t.Fatal(err)
	}
	if _, request, ok, err := again.first(); !ok || err == nil {
		t.Errorf("a link: got %q, %v, want an error", request, err)
	}
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := openSpool(folder, 1<<20); !errors.Is(err, owned.ErrForeign) {
		t.Errorf("a folder that all write: got %v, want %v", err, owned.ErrForeign)
	}
}

// What the disk does not take waits in memory, in its order and within a bound.
func TestSpoolOnAFullDisk(t *testing.T) {
	s, err := openSpool(t.TempDir(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	put := func(request string, onDisk bool) (dropped int) {
		t.Helper()
		folder := s.folder
		if !onDisk {
			s.folder = closed(t)
		}
		dropped, err := s.put([]byte(request))
		s.folder = folder
		if (err == nil) != onDisk {
			t.Errorf("%.10s: got %v", request, err)
		}
		return dropped
	}
	put("one", true)
	put("two", false)
	put("three", true) // and so is two
	put("four", false)
	if s.held != int64(len("four")) {
		t.Errorf("got %d bytes in memory, want those of one request", s.held)
	}
	after, err := openSpool(s.path, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(after.waiting), 3; got != want {
		t.Errorf("got %d requests that would outlive the process, want %d", got, want)
	}
	if got, want := rest(t, s), []string{"one", "two", "three", "four"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	large := string(make([]byte, memoryLimit/4))
	dropped := 0
	for range 6 {
		dropped += put(large, false)
	}
	if dropped != 2 || s.size() > memoryLimit {
		t.Errorf("got %d dropped and %d bytes in memory, want 2 and at most %d", dropped, s.size(), memoryLimit)
	}
	if got := len(rest(t, s)); got != 4 || s.held != 0 {
		t.Errorf("got %d that waited and %d bytes after them, want 4 and none", got, s.held)
	}
}

// Somebody removes the spool from a full disk while the agent runs: what comes then has a folder again.
func TestSpoolIsRemoved(t *testing.T) {
	s, err := openSpool(filepath.Join(t.TempDir(), "spool"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.put([]byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.put([]byte("two")); err != nil {
		t.Error(err)
	}
	if _, _, ok, err := s.first(); !ok || err == nil {
		t.Errorf("got %v and %v of a request that is gone, want an error", ok, err)
	}
	if err := s.remove(0); err != nil {
		t.Error(err)
	}
	after, err := openSpool(s.path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := rest(t, after), []string{"two"}; !slices.Equal(got, want) {
		t.Errorf("got %q in the folder, want %q", got, want)
	}
}

// Where the disk has no room for the spool's folder an agent starts all the same.
func TestSpoolBeginsOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,nr_inodes=2"); err != nil {
		t.Skip("nothing can be mounted:", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil { // the spool has it open
			t.Error(err)
		}
	}()
	full := filepath.Join(dir, "full")
	if err := os.WriteFile(full, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := openSpool(filepath.Join(dir, "spool"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.put([]byte("one")); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want %v", err, unix.ENOSPC)
	}
	if err := errors.Join(os.Remove(full), unix.Mount("", dir, "", unix.MS_REMOUNT, "nr_inodes=8")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.put([]byte("two")); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadDir(filepath.Join(dir, "spool")); err != nil || len(got) != 2 {
		t.Errorf("got %v and %v, want two files", got, err)
	}
	if got, want := rest(t, s), []string{"one", "two"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The times of samples never go back, and go on by the time that has passed.
func TestStamps(t *testing.T) {
	w := new(Writer)
	began := time.Now()
	at := func(elapsed, set time.Duration) time.Time { // the clock was set by this
		// A time of which wall clock and monotonic clock differ cannot be made: taken is moved.
		w.taken = w.taken.Add(set)
		return began.Add(elapsed + set).Round(0)
	}
	first := w.stamp(at(0, 0))
	w.taken = first
	if got := w.stamp(at(15*time.Second, 0)).Sub(first); got != 15*time.Second {
		t.Errorf("got %v later, want 15s", got)
	}
	if got := w.stamp(at(30*time.Second, -time.Hour)).Sub(first); got != 30*time.Second {
		t.Errorf("set back by an hour: got %v later, want 30s", got)
	}
	if got := w.stamp(at(45*time.Second, 2*time.Hour)).Sub(first); got < 45*time.Second {
		t.Errorf("set on: got %v later, want no less than 45s", got)
	}
}
