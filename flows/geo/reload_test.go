// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/podmeter/podmeter/flows"
)

// country returns the country of an address in 198.51.100.0/24.
func country(d *Databases, last byte) string {
	return d.Place(netip.AddrFrom4([4]byte{198, 51, 100, last})).Country
}

func TestReload(t *testing.T) {
	path := writeFile(t, "a.mmdb", inCountry(t, "DE"))
	d := open(t, Options{Paths: []string{path}})
	if got := country(d, 7); got != "DE" {
		t.Fatalf("got %q, want DE", got)
	}
	overwrite(t, path, inCountry(t, "FR"))
	if got := country(d, 7); got != "DE" {
		t.Errorf("rewritten, not reloaded: got %q, want DE", got)
	}
	if err := d.Reload(); err != nil {
		t.Fatal(err)
	}
	// The address was cached: the cache must be gone as well.
	if got := country(d, 7); got != "FR" {
		t.Errorf("got %q, want FR", got)
	}
}

func TestReloadOfBrokenKeepsOld(t *testing.T) {
	breakers := map[string]func(t *testing.T, path string){
		"removed":     func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"truncated":   func(t *testing.T, path string) { must(t, os.Truncate(path, 100)) },
		"emptied":     func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) },
		"overwritten": func(t *testing.T, path string) { overwrite(t, path, []byte("text")) },
		"replaced":    func(t *testing.T, path string) { replace(t, path, []byte("text")) },
		"useless":     func(t *testing.T, path string) { replace(t, path, one(t, m{"a": s("b")})) },
	}
	for name, spoil := range breakers {
		t.Run(name, func(t *testing.T) {
			bad := writeFile(t, "bad.mmdb", inCountry(t, "DE"))
			good := writeFile(t, "good.mmdb", one(t, m{"asn": s("1")}))
			d := open(t, Options{Paths: []string{bad, good}})
			spoil(t, bad)
			replace(t, good, one(t, m{"asn": s("2")}))
			if err := d.Reload(); err == nil || !strings.Contains(err.Error(), bad) {
				t.Errorf("got error %v, want one that names %s", err, bad)
			}
			// The cache is empty: this reads the memory of the database.
			want := atCentroid(flows.Place{Country: "DE", ASN: "2"})
			if got := d.Place(addr("198.51.100.7")); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			if info := d.Info(); info[0].Problem == "" || info[1].Problem != "" {
				t.Errorf("got problems %q and %q, want one with the first", info[0].Problem, info[1].Problem)
			}
			replace(t, bad, inCountry(t, "FR"))
			must(t, d.Reload())
			if got, problem := country(d, 7), d.Info()[0].Problem; got != "FR" || problem != "" {
				t.Errorf("mended: got %q, problem %q, want FR and none", got, problem)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReloadUnderReaders(t *testing.T) {
	codes := []string{"DE", "FR"}
	files := [][]byte{inCountry(t, codes[0]), inCountry(t, codes[1])}
	path := writeFile(t, "a.mmdb", files[0])
	d := open(t, Options{Paths: []string{path}})
	d.cache = newCache(4) // so that most lookups read the database
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for r := range 4 {
		readers.Go(func() {
			for i := r; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if got := country(d, byte(i)); got != codes[0] && got != codes[1] {
					t.Errorf("got %q, want one of %v", got, codes)
					return
				}
			}
		})
	}
	for i := range 100 {
		want := (i + 1) % 2
		replace(t, path, files[want])
		if err := d.Reload(); err != nil {
			t.Error(err)
		}
		if got := country(d, 7); got != codes[want] {
			t.Errorf("reload %d: got %q, want %q", i, got, codes[want])
		}
	}
	close(stop)
	readers.Wait()
}

func TestCloseUnderReaders(t *testing.T) {
	d := open(t, Options{Paths: []string{writeFile(t, "a.mmdb", inCountry(t, "DE"))}})
	d.cache = newCache(4)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for i := 0; ; i++ {
				switch got := country(d, byte(i)); got {
				case "":
					return
				case "DE":
				default:
					t.Errorf("got %q, want DE", got)
				}
			}
		})
	}
	must(t, d.Close())
	readers.Wait()
}

// TestUnreadableRecord damages a record after it was opened and checked, as memory may
// be.
func TestUnreadableRecord(t *testing.T) {
	data := one(t, m{"country": s("DE"), "extra": mmdbtype.Bool(true)})
	var log bytes.Buffer
	d := open(t, Options{
		Embedded: []Embedded{{Name: "damaged", Data: data}},
		Logger:   slog.New(slog.NewTextHandler(&log, nil)),
	})
	at := bytes.Index(data, []byte("country"))
	data[at-1] = 0xff // the key is now a map
	for _, a := range []string{"198.51.100.1", "198.51.100.2"} {
		if got := d.Place(addr(a)); got != (flows.Place{}) {
			t.Errorf("%s: got %v, want nothing", a, got)
		}
	}
	if got := strings.Count(log.String(), "unreadable"); got != 1 {
		t.Errorf("got %d complaints, want 1:\n%s", got, log.String())
	}
}

// lockedBuffer is a log that may be read while others write it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// watcher runs Watch in a bubble of synctest, where time passes only in sleep.
type watcher struct {
	*Databases
	path string
	log  *lockedBuffer
}

func watch(t *testing.T, check func(watcher)) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		w := watcher{path: filepath.Join(t.TempDir(), "a.mmdb"), log: &log}
		overwrite(t, w.path, inCountry(t, "DE"))
		w.Databases = open(t, Options{Paths: []string{w.path}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Watch(ctx) }()
		check(w)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watch: got %v, want nil", err)
		}
	})
}

// sleep lets some looks at the files pass.
func (w watcher) sleep(looks int) {
	time.Sleep(time.Duration(looks)*defaultInterval + time.Millisecond)
	synctest.Wait()
}

// errors counts what was logged as an error.
func (w watcher) errors() int { return strings.Count(w.log.String(), "level=ERROR") }

// loads counts how often the file was loaded.
func (w watcher) loads() int { return strings.Count(w.log.String(), "geoip database loaded") }

func TestWatch(t *testing.T) {
	for name, change := range map[string]func(testing.TB, string, []byte){"replaced": replace, "rewritten": overwrite} {
		t.Run(name, func(t *testing.T) {
			watch(t, func(w watcher) {
				w.sleep(3)
				if got := w.loads(); got != 1 {
					t.Errorf("unchanged: got %d loads, want 1", got)
				}
				change(t, w.path, inCountry(t, "FR"))
				w.sleep(1)
				if got := country(w.Databases, 7); got != "DE" {
					t.Errorf("after one look: got %q, want DE as the file has not kept still", got)
				}
				w.sleep(2)
				if got := country(w.Databases, 7); got != "FR" {
					t.Errorf("after three looks: got %q, want FR", got)
				}
				w.sleep(5)
				if got := w.loads(); got != 2 || w.errors() != 0 {
					t.Errorf("got %d loads, %d errors, want 2, 0:\n%s", got, w.errors(), w.log)
				}
			})
		})
	}
}

func TestWatchComplainsOncePerChange(t *testing.T) {
	watch(t, func(w watcher) {
		steps := []struct {
			name   string
			change func()
			want   string
			errors int
		}{
			{"removed", func() { must(t, os.Remove(w.path)) }, "DE", 1},
			{"text", func() { overwrite(t, w.path, []byte("text")) }, "DE", 2},
			{"empty", func() { must(t, os.Truncate(w.path, 0)) }, "DE", 3},
			{"good again", func() { replace(t, w.path, inCountry(t, "FR")) }, "FR", 3},
			{"truncated", func() { must(t, os.Truncate(w.path, 500)) }, "FR", 4},
		}
		for _, step := range steps {
			step.change()
			w.sleep(5)
			if got := country(w.Databases, 7); got != step.want {
				t.Errorf("%s: got %q, want %q", step.name, got, step.want)
			}
			if got := w.errors(); got != step.errors {
				t.Errorf("%s: got %d errors, want %d:\n%s", step.name, got, step.errors, w.log)
			}
		}
	})
}

func TestWatchWaitsForAWriter(t *testing.T) {
	watch(t, func(w watcher) {
		data := inCountry(t, "FR")
		for n := 100; n < len(data); n += 300 {
			overwrite(t, w.path, data[:n])
			w.sleep(1)
		}
		overwrite(t, w.path, data)
		w.sleep(3)
		if got := country(w.Databases, 7); got != "FR" || w.errors() != 0 {
			t.Errorf("got %q, %d errors, want FR, 0:\n%s", got, w.errors(), w.log)
		}
	})
}
