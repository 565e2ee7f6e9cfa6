// SPDX-License-Identifier: Apache-2.0

package geoip

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows/geo/demodb"
)

// fake is a Prometheus that answers what it is told to. It may be changed while
// it is asked.
type fake struct {
	*httptest.Server
	mu     sync.Mutex
	answer http.HandlerFunc
	asked  []string // the queries
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked = append(f.asked, r.URL.Path+" "+r.FormValue("query")+" "+r.FormValue("timeout"))
		answer := f.answer
		f.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) set(answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// body answers with a code and JSON.
func body(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		io.WriteString(w, text) // the client may be gone
	}
}

// vector answers with rows, each as labels in JSON and a value.
func vector(rows ...[2]string) http.HandlerFunc {
	var samples []string
	for _, row := range rows {
		samples = append(samples, fmt.Sprintf(`{"metric": {%s}, "value": [1, %q]}`, row[0], row[1]))
	}
	return body(http.StatusOK, fmt.Sprintf(`{"status": "success", "data": {"resultType": "vector", "result": [%s]}}`, strings.Join(samples, ",")))
}

// at is a row with an address alone.
func at(address, value string) [2]string { return [2]string{fmt.Sprintf(`"ip": %q`, address), value} }

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

// count returns how often a text was logged.
func (l *lockedBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// demoFile returns the path of a copy of the demo's city database.
func demoFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "city.mmdb")
	if err := os.WriteFile(path, demodb.City(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// configOf returns a configuration that asks a server.
func configOf(t *testing.T, url string) Config {
	t.Helper()
	c := Defaults()
	c.PrometheusURL, c.Query, c.Listen = url, "traffic", "127.0.0.1:0"
	c.GeoIP, c.Interval, c.Timeout = []string{demoFile(t)}, 10*time.Millisecond, 5*time.Second
	return c
}

// newService returns a service that has not asked yet, and its log.
func newService(t *testing.T, config Config) (*Service, *lockedBuffer) {
	t.Helper()
	var log lockedBuffer
	s, err := New(config, Options{Version: "v0", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, &log
}

// exposed returns the lines of /metrics that begin with a prefix.
func exposed(t *testing.T, s *Service, prefix string) (lines []string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.server.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("/metrics: got %d: %s", w.Code, w.Body)
	}
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// has checks that /metrics has a line.
func has(t *testing.T, s *Service, want string) {
	t.Helper()
	name, _, _ := strings.Cut(want, " ")
	if got := exposed(t, s, name+" "); len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
