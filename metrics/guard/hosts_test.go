// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/util/proxy"
)

func newGuard(t *testing.T) *Guard {
	t.Helper()
	g, err := New(Options{Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// checked is a server that checks names, with a page at /page/.
func checked(g *Guard, names ...string) http.Handler {
	hosts := Hosts{
		Names: names, Node: func() string { return "Node-A.example" },
		Pages: func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/page/") },
	}
	return g.Check(hosts, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
}

// chromium is what a browser sends of its own, Connection included.
var chromium = http.Header{
	"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64)"}, "Accept-Language": {"en-US,en;q=0.9"}, "Accept-Encoding": {"gzip, deflate"},
	"Connection": {"keep-alive"}, "Accept": {"*/*"},
}

func TestHosts(t *testing.T) {
	handler := checked(newGuard(t), "Ingress.example")
	forged := chromium.Clone() // what a script of another site can add and overwrite
	forged.Set("X-Forwarded-Uri", "/api/v1/namespaces/podmeter/pods/http:podmeter-1:9739/proxy/page/state")
	forged.Set("X-Forwarded-For", "192.0.2.1")
	forged.Set("User-Agent", "Prometheus/3")
	forged.Set("Accept-Language", "")
	for _, c := range []struct {
		host    string
		header  http.Header
		page    bool
		metrics bool
	}{
		{"192.0.2.1:9739", chromium, true, true},
		{"[2001:db8::1]:9739", chromium, true, true},
		{"[2001:db8::1]", chromium, true, true},
		{"[fe80::1%25eth0]:9739", chromium, true, true},
		{"localhost:3000", chromium, true, true},
		{"LOCALHOST.", chromium, true, true},
		{"node-a.example:9739", chromium, true, true},
		{"ingress.EXAMPLE", chromium, true, true},
		{"ingress.example.:80", chromium, true, true},
		{"", nil, true, true},
		{"evil.example:9739", chromium, false, false},
		{"evil.example", forged, false, false},
		{"ingress.example.evil.example", chromium, false, false},
		{"192.0.2.1.evil.example", chromium, false, false},
		{"localhost.evil.example", chromium, false, false},
		{"node-a", chromium, false, false},
		{"evil.example", nil, false, true},
		{"podmeter:9739", http.Header{"User-Agent": {"Prometheus/3.16.0"}, "Accept-Encoding": {"gzip"}}, false, true},
		{"evil.example", http.Header{"Origin": {"http://evil.example"}}, false, false},
		{"evil.example", http.Header{"Sec-Fetch-Site": {"same-origin"}}, false, false},
	} {
		for path, want := range map[string]bool{"/page/state": c.page, "/metrics": c.metrics} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host, r.Header = c.host, c.header.Clone()
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if code := map[bool]int{true: 200, false: 421}[want]; w.Code != code {
				t.Errorf("%s of %q with %v: got %d, want %d", path, c.host, c.header, w.Code, code)
			}
		}
	}
}

// A refusal names the flag and no more of the name than DNS has, without what could be
// markup or control a terminal.
func TestHostIsNamedWithinBounds(t *testing.T) {
	g := newGuard(t)
	r := httptest.NewRequest(http.MethodGet, "/page/", nil)
	r.Host = "a\x1b\n<" + strings.Repeat("b", 10_000)
	w := httptest.NewRecorder()
	checked(g).ServeHTTP(w, r)
	body := strings.TrimSuffix(w.Body.String(), "\n")
	if w.Code != http.StatusMisdirectedRequest || len(body) > 600 || strings.ContainsAny(body, "\x1b\n") || !strings.Contains(body, "--page-hosts") {
		t.Errorf("got %d, %d bytes: %.700q, want a short 421 that names --page-hosts", w.Code, len(body), body)
	}
	if w.Header().Get("Content-Type") != "text/plain; charset=utf-8" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("got %v, want plain text that is nothing else", w.Header())
	}
	if got := testutil.ToFloat64(g.refused.WithLabelValues(string(reasonHost))); got != 1 {
		t.Errorf("counted: got %v, want 1", got)
	}
	if got := checkedCode(checked(g, AnyHost), r); got != http.StatusOK {
		t.Errorf("with %s: got %d, want 200", AnyHost, got)
	}
}

func checkedCode(h http.Handler, r *http.Request) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

// The API server's proxy passes on the name by which it was asked itself, which may be any.
// It is the API server's own code that is asked here, as a browser asks it.
func TestHostsByTheAPIServersProxy(t *testing.T) {
	agent := httptest.NewServer(checked(newGuard(t)))
	defer agent.Close()
	const below = "/api/v1/namespaces/podmeter/pods/http:podmeter-x7k2p:9739/proxy"
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		location, err := url.Parse(agent.URL)
		if err != nil {
			t.Error(err)
			return
		}
		location.Path = strings.TrimPrefix(r.URL.Path, below)
		proxy.NewUpgradeAwareHandler(location, http.DefaultTransport, true, false, responder{t}).ServeHTTP(w, r)
	}))
	defer api.Close()
	for _, path := range []string{"/page/state", "/page/", "/metrics"} {
		r, err := http.NewRequest(http.MethodGet, api.URL+below+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host, r.Header = "cluster-1.api.cloud.example:6443", chromium.Clone()
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: got %d, want 200", path, response.StatusCode)
		}
	}
}

type responder struct{ t *testing.T }

func (r responder) Error(_ http.ResponseWriter, _ *http.Request, err error) {
	r.t.Error(fmt.Errorf("proxy: %w", err))
}
