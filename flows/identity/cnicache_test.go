// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
)

// What is no result of a pod is left out, and hides no other.
func TestCNICacheLeavesOutWhatIsNone(t *testing.T) {
	p := pod("a", 0)
	good := resultOf(t, p, host(device, mac1))
	for name, spoil := range map[string]func(*results){
		"broken JSON":   func(r *results) { r.write("x", []byte(`{"kind": "cniCacheV1", "result": `), 7) },
		"empty":         func(r *results) { r.write("x", nil, 7) },
		"not an object": func(r *results) { r.write("x", []byte(`["cniCacheV1"]`), 7) },
		"another kind":  func(r *results) { r.write("x", bytes.Replace(good, []byte(cniKind), []byte("other"), 1), 7) },
		"no UID":        func(r *results) { r.write("x", bytes.Replace(good, []byte("K8S_POD_UID"), []byte("UID"), 1), 7) },
		"too long":      func(r *results) { r.write("x", append(good, bytes.Repeat([]byte(" "), maxCNIFile)...), 7) },
		"directory": func(r *results) {
			if err := os.Mkdir(r.path("x"), 0o700); err != nil {
				r.t.Fatal(err)
			}
		},
		"link to a file": func(r *results) {
			elsewhere := filepath.Join(r.t.TempDir(), "f")
			if err := os.WriteFile(elsewhere, resultOf(r.t, pod("b", 0), host(device, mac1)), 0o600); err != nil {
				r.t.Fatal(err)
			}
			if err := os.Symlink(elsewhere, r.path("x")); err != nil {
				r.t.Fatal(err)
			}
		},
		"pipe": func(r *results) {
			if err := syscall.Mkfifo(r.path("x"), 0o600); err != nil {
				r.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResults(t)
			spoil(r)
			r.write("good", good, 6)
			files := newCNICache(r.directory, time.Now, slog.New(slog.DiscardHandler)).of(device)
			if len(files) != 1 || files[0].result.uid != p.UID {
				t.Errorf("got %d files of %s, want that of %s", len(files), device, p.UID)
			}
		})
	}
}

// A file is read again when it has changed, and the directory once for many questions.
func TestCNICacheReadsWhatChanged(t *testing.T) {
	r, now := newResults(t), start
	c := newCNICache(r.directory, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	uids := func() (all []string) {
		for _, file := range c.of(device) {
			all = append(all, file.result.uid)
		}
		return all
	}
	expect := func(when string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, uids()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	expect("none")
	r.write("f", resultOf(t, pod("a", 0), host(device, mac1)), 1)
	expect("listed a moment ago")
	now = now.Add(cniAge)
	expect("listed again", "uid-a")
	first := c.files[r.path("f")]
	now = now.Add(cniAge)
	expect("not changed", "uid-a")
	if c.files[r.path("f")] != first {
		t.Error("not changed: it was read again")
	}
	r.write("f", resultOf(t, pod("b", 0), host(device, mac1)), 2)
	now = now.Add(cniAge)
	expect("changed", "uid-b")
	now = now.Add(-time.Hour)
	if err := os.Remove(r.path("f")); err != nil {
		t.Fatal(err)
	}
	expect("removed, and the clock set back", "uid-b")
	if c.of(device)[0].removed.IsZero() {
		t.Error("removed: got no time of it")
	}
	now = now.Add(cniMemory - 1)
	expect("removed a while ago", "uid-b")
	now = now.Add(1)
	now = now.Add(cniAge)
	expect("removed long ago")
}

// What keeps the directory from being read is said once; that there is none is no
// problem.
func TestCNICacheSaysWhatIsWrong(t *testing.T) {
	directory, now := t.TempDir(), start
	var log bytes.Buffer
	c := newCNICache(directory, func() time.Time { return now }, slog.New(slog.NewTextHandler(&log, nil)))
	ask := func(when string, want ...string) {
		t.Helper()
		log.Reset()
		for range 3 {
			now = now.Add(cniAge)
			if got := c.of(device); len(got) > 0 {
				t.Errorf("%s: got %d files, want none", when, len(got))
			}
		}
		lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
		if len(want) == 0 && log.Len() > 0 || len(want) > 0 && len(lines) != 1 {
			t.Errorf("%s: got %q, want %d lines", when, log.String(), len(want))
		}
		for _, text := range want {
			if !strings.Contains(log.String(), text) {
				t.Errorf("%s: got %q, want %q in it", when, log.String(), text)
			}
		}
	}
	ask("no directory")
	if err := os.WriteFile(filepath.Join(directory, "results"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ask("not a directory", "level=WARN", "not a directory")
	if err := os.Remove(filepath.Join(directory, "results")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(directory, "results"), 0o700); err != nil {
		t.Fatal(err)
	}
	ask("a directory at last", "level=INFO", "again")
}

// Too many files are no files: which was written last is not known then.
func TestCNICacheRefusesTooMany(t *testing.T) {
	effort.Long(t, "writes 16,385 files")
	r := newResults(t)
	for n := range maxCNIFiles + 1 {
		if err := os.WriteFile(r.path(fmt.Sprint(n)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.made(pod("a", 0), 1, host(device, mac1))
	var log bytes.Buffer
	c := newCNICache(r.directory, time.Now, slog.New(slog.NewTextHandler(&log, nil)))
	if got := c.of(device); len(got) > 0 || !strings.Contains(log.String(), "more than 16384 files") {
		t.Errorf("got %d files and the log %q, want none and why", len(got), log.String())
	}
}

// Pods that live for less than a drain, one after the other on one address, are bound when
// they are gone.
func TestShortLivedPodsAreBound(t *testing.T) {
	r, c := newResults(t), newTestCache(&clock{at(100)})
	files := newCNICache(r.directory, time.Now, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { files.watch(ctx) })
	defer watching.Wait()
	defer cancel()

	const pods = 12
	var interfaces []flows.Interface
	for n := range pods {
		p := pod(fmt.Sprint(n), float64(n), "10.0.0.1")
		name := fmt.Sprint("veth", n)
		c.SetPod(p)
		r.write("result-"+p.UID, resultOf(t, p, host(name, "")), float64(n))
		known := func(removed bool) bool {
			files.mu.Lock()
			defer files.mu.Unlock()
			found := files.byDevice[name]
			return len(found) == 1 && found[0].removed.IsZero() != removed
		}
		ktest.Await(t, "the file is read", func() bool { return known(false) })
		if err := os.Remove(r.path("result-" + p.UID)); err != nil {
			t.Fatal(err)
		}
		ktest.Await(t, "its removal is noticed", func() bool { return known(true) })
		c.DeletePod(p)
		interfaces = append(interfaces, flows.Interface{Name: name, Attached: at(float64(n)), Gone: at(float64(n) + 0.9), PeerNamespace: 0})
	}
	b := cniBinder{files, c, never{}}
	for n, i := range interfaces {
		want := fmt.Sprint("uid-", n)
		if got := b.Bind(i, nil, nil); got == nil || got.UID != want {
			t.Errorf("%s: got %v, want %s", i.Name, got, want)
		}
		i.Gone = time.Time{} // another interface of that name, which is there
		if got := b.Bind(i, nil, nil); got != nil {
			t.Errorf("%s, still there: got %v, want none", i.Name, got)
		}
	}
}

// That a directory is there and cannot be watched is said once: the limit of watches may be reached when
// that of watchers is not.
func TestCNICacheThatCannotBeWatched(t *testing.T) {
	r := newResults(t)
	var log bytes.Buffer
	files := newCNICache(r.directory, time.Now, slog.New(slog.NewTextHandler(&log, nil)))
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	files.watchOn(watcher) // there is none of Multus
	if log.Len() > 0 {
		t.Errorf("got a line about a directory that is not there: %s", log.String())
	}
	if err := watcher.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		files.watchOn(watcher)
	}
	if got := strings.Count(log.String(), "CNI results cannot be watched"); got != 1 {
		t.Errorf("got %d lines, want 1:\n%s", got, log.String())
	}
}

// The clock is set between the first sight of an interface, its CNI result and its end: when a file
// was written, as the kernel told, counts as well as what it says.
func TestCNIResultWhileTheClockIsSet(t *testing.T) {
	p := pod("a", 0)
	for name, test := range map[string]struct {
		watched bool
		set     time.Duration // what the file says is off by this
		want    bool
	}{
		"set back after the interface appeared":                {true, -2 * time.Hour, true},
		"set back after the result was written":                {true, 2 * time.Hour, true},
		"not set":                                              {true, 0, true},
		"a file of before the interface":                       {false, -2 * time.Hour, false},
		"a file of after it, which may be another's by a name": {false, 2 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, c := newResults(t), newTestCache(&clock{at(100)})
			c.SetPod(p)
			files := newCNICache(r.directory, time.Now, slog.New(slog.DiscardHandler))
			if test.watched {
				files.of(device) // as watching begins
			}
			began := time.Now()
			r.made(p, 0, host(device, mac1))
			path := r.path("net-" + p.UID + "-eth0")
			if err := os.Chtimes(path, time.Time{}, began.Add(test.set)); err != nil {
				t.Fatal(err)
			}
			if test.watched {
				files.notice(path)
			}
			i := flows.Interface{
				Name: device, HardwareAddr: mac1, Appeared: began, Attached: began, Gone: time.Now().Add(time.Second), PeerNamespace: 0,
			}
			if got := (cniBinder{files, c, never{}}).Bind(i, nil, nil) != nil; got != test.want {
				t.Errorf("got bound %v, want %v", got, test.want)
			}
		})
	}
}

// Without libcni's cache a cgroup is bound all the same.
func TestHostPodWithoutCNICache(t *testing.T) {
	c := newTestCache(&clock{at(100)})
	p := pod("a", 0, "192.0.2.1")
	p.HostNetwork = true
	c.SetPod(p)
	k := &Kubernetes{cache: c}
	if got := k.Binder().Bind(flows.Interface{Name: "pod-a", PodUID: "uid-a", Attached: at(50)}, nil, nil); got == nil || got.UID != "uid-a" {
		t.Errorf("got %v, want uid-a", got)
	}
	if k.Made(flows.Interface{Name: "veth1"}) {
		t.Error("made: got true, want no answer")
	}
}
