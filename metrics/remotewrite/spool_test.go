// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/podmeter/podmeter/internal/owned"
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
