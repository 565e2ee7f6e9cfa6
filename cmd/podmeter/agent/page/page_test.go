// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// most is how large all files may be together.
const most = 200_000

func TestFilesAreServed(t *testing.T) {
	p := newPage(&source{snapshot: snapshotAt(0)})
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/page/page.css": "text/css; charset=utf-8", "/page/page.js": "text/javascript; charset=utf-8",
		"/page/land.js": "text/javascript; charset=utf-8", "/page/state": "application/json",
	} {
		w := request(p, http.MethodGet, path)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind {
			t.Errorf("%s: got %d %q, want 200 %q", path, w.Code, w.Header().Get("Content-Type"), kind)
		}
	}
	sum := 0
	for path, handler := range files() {
		size := len(handler.(*file).content)
		sum += size
		if size == 0 {
			t.Errorf("%s is empty", path)
		}
	}
	if sum >= most {
		t.Errorf("all files: got %d bytes, want less than %d", sum, most)
	}
}

// Whatever is asked for, also what there is not, comes with the policy.
func TestHeaders(t *testing.T) {
	p := newPage(&source{snapshot: snapshotAt(0)})
	for _, path := range []string{"/", "/page/page.js", "/page/state", "/page/nothing"} {
		h := request(p, http.MethodGet, path).Header()
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
				"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s of %s: got %q, want %q", name, path, got, want)
			}
		}
	}
	if got := request(p, http.MethodGet, "/page/state").Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("state: got %q, want it not to be stored", got)
	}
}

func TestMethodsAndPaths(t *testing.T) {
	p := newPage(&source{snapshot: snapshotAt(0)})
	for _, c := range []struct {
		method, path string
		code         int
	}{
		{"POST", "/", 405}, {"PUT", "/page/state", 405}, {"DELETE", "/page/page.js", 405}, {"HEAD", "/", 200},
		{"GET", "/page/", 404}, {"GET", "/page/index.html", 404}, {"GET", "/page/../state", 404}, {"GET", "/page/assets/page.js", 404},
	} {
		if got := request(p, c.method, c.path).Code; got != c.code && !(c.code == 404 && got/100 == 3) {
			t.Errorf("%s %s: got %d, want %d", c.method, c.path, got, c.code)
		}
	}
	mark := request(p, http.MethodGet, "/").Header().Get("ETag")
	if got := request(p, http.MethodGet, "/", "If-None-Match", mark).Code; mark == "" || got != http.StatusNotModified {
		t.Errorf("a file that the browser has, with mark %s: got %d, want 304", mark, got)
	}
}

// What a file may not have: addresses of elsewhere (a namespace of XML is a name and is
// not loaded), markup made of strings, and what the policy would refuse.
var forbidden = map[string]*regexp.Regexp{
	"an address of elsewhere": regexp.MustCompile(`(?i)(https?:|["'(=\s])//[a-z0-9]`),
	"markup of a string":      regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function`),
	"a handler in markup":     regexp.MustCompile(`(?i)<[^>]+\son[a-z]+\s*=`),
	"a style in markup":       regexp.MustCompile(`(?i)<[^>]+\sstyle\s*=|<style|setAttribute\("style"`),
	"a style from elsewhere":  regexp.MustCompile(`(?i)@import|url\(["']?http`),
	"a path from the root":    regexp.MustCompile(`(?:href|src)="/|fetch\("/|from "/`), // there may be a proxy before it
	"a script in markup":      regexp.MustCompile(`(?i)<script(?:[^>]*)>\s*[^<\s]`),
}

func TestFilesAreClosed(t *testing.T) {
	for path, handler := range files() {
		content := string(handler.(*file).content)
		content = strings.ReplaceAll(content, "http://www.w3.org/2000/svg", "")
		for what, pattern := range forbidden {
			if found := pattern.FindString(content); found != "" {
				t.Errorf("%s has %s: %q", path, what, found)
			}
		}
		if !strings.Contains(content, "SPDX-License-Identifier: Apache-2.0") {
			t.Errorf("%s: no licence", path)
		}
	}
}

// A name is data whatever is in it, also where an answer is looked at by itself.
func TestHostileNames(t *testing.T) {
	const name = `</script><script>alert(1)</script>`
	p := newPage(&source{snapshot: snapshotAt(0, withPod(name, name, 1, 2), withFlow(name, name, toPod(name, name, 0), 1, 2),
		withPlace(name, name, flows.ExternalLabels{Country: name, City: name, Organization: name}, 1, 2))})
	w := request(p, http.MethodGet, "/page/state")
	if strings.Contains(w.Body.String(), "<") {
		t.Errorf("got a bare < in %s", w.Body)
	}
	s := ask(t, p)
	for what, got := range map[string]string{
		"pod": s.Pods.Rows[0].Name, "workload": s.Edges.Rows[0].Local.Name, "peer": s.Edges.Rows[0].Peer.Name,
		"country": s.Places.Rows[0].Country, "organization": s.Places.Rows[0].Organization,
	} {
		if got != name {
			t.Errorf("%s: got %q, want %q", what, got, name)
		}
	}
}

func TestSnapshotFails(t *testing.T) {
	s := &source{err: errors.New("no drain")}
	p := newPage(s)
	if w := request(p, http.MethodGet, "/page/state"); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "no drain") {
		t.Errorf("got %d %q, want 503, and the reason in the log alone", w.Code, w.Body)
	}
	s.err = nil
	s.put(snapshotAt(0))
	if got := ask(t, p).Node; got != "node-a" {
		t.Errorf("after it: got node %q, want node-a", got)
	}
}

// Nothing is asked of the agent unless somebody asks, and once a second of however many.
func TestReadersShareAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{snapshot: snapshotAt(0)}
		p := newPage(s)
		time.Sleep(time.Hour)
		if s.asked != 0 {
			t.Errorf("nobody looks: asked %d times, want none", s.asked)
		}
		for want := 1; want <= 3; want++ {
			var readers sync.WaitGroup
			for range 20 {
				readers.Go(func() { request(p, http.MethodGet, "/page/state") })
			}
			readers.Wait()
			if s.asked != want {
				t.Errorf("20 readers in second %d: asked %d times, want %d", want, s.asked, want)
			}
			time.Sleep(shared)
		}
	})
}

// Who has gone while others were answered is not worth a drain.
func TestReaderThatHasGone(t *testing.T) {
	s := &source{snapshot: snapshotAt(0)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	newPage(s).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/page/state", nil))
	if s.asked != 0 {
		t.Errorf("asked %d times, want none", s.asked)
	}
}

// What rates are made of is not kept for nobody, and a rate is not made over that time.
func TestHistoryIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{snapshot: snapshotAt(0, withPod("shop", "web", 100, 0))}
		p := newPage(s)
		ask(t, p)
		time.Sleep(forgetAfter - time.Second)
		s.put(snapshotAt(29, withPod("shop", "web", 200, 0)))
		if got := ask(t, p); got.GrownSeconds != 29 || got.Pods.Rows[0].Grown != (pair{100, 0}) {
			t.Errorf("in time: got %v s and %v, want 29 s and 100 bytes", got.GrownSeconds, got.Pods.Rows[0].Grown)
		}
		time.Sleep(forgetAfter + time.Second)
		p.mu.Lock()
		kept := p.history.last != nil || p.answer != nil
		p.mu.Unlock()
		if kept {
			t.Error("the last answer is still there")
		}
		s.put(snapshotAt(60, withPod("shop", "web", 900, 0)))
		if got := ask(t, p); got.GrownSeconds != 0 || got.Watch != got.AsOf {
			t.Errorf("too late: got rates over %v s since %v, want none", got.GrownSeconds, got.Watch)
		}
		time.Sleep(2 * forgetAfter) // the timer is over when the test is
	})
}

// BenchmarkState is an answer of 2,000 flow rows and 1,000 places, whose counters have grown
// since the last.
func BenchmarkState(b *testing.B) {
	s := &source{}
	p := newPage(s)
	size := 0
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		s.put(many(2000, n))
		p.made = time.Time{}
		b.StartTimer()
		size = request(p, http.MethodGet, "/page/state").Body.Len()
	}
	b.ReportMetric(float64(size), "B/answer")
}
