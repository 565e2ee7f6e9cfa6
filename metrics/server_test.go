// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
)

func serverOptions(t *testing.T, s Source) ServerOptions {
	t.Helper()
	return ServerOptions{
		Registry:  newExporter(t, options(s, flows.Optional{})).Registry(),
		Readiness: func() Readiness { return Readiness{IdentitySource: "none", IdentityAge: -1} },
		Version:   "1.2.3", Logger: slog.New(slog.DiscardHandler),
	}
}

func newServer(t *testing.T, o ServerOptions) *Server {
	t.Helper()
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serve serves on loopback until the test ends, and returns the address.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: got %v, want no error", err)
		}
	})
	return listener.Addr().String()
}

// request is answered by the handler itself.
func request(h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPaths(t *testing.T) {
	o := serverOptions(t, &source{snapshot: handMade()})
	plain := newServer(t, o).Handler()
	o.Pprof = true
	withPprof := newServer(t, o).Handler()
	o.Health = func() error { return nil }
	healthy := newServer(t, o).Handler()
	o.Health = func() error { return errors.New("no drain for 1m") }
	stuck := newServer(t, o).Handler()
	o.Page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "page of "+r.URL.Path) })
	withPage := newServer(t, o).Handler()
	for _, c := range []struct {
		handler      http.Handler
		method, path string
		code         int
		body         string
	}{
		{plain, "GET", "/", 200, `href="/metrics"`},
		{plain, "GET", "/metrics", 200, `podmeter_pod_transmit_bytes_total{namespace="web",pod="shop-0"} 3300`},
		{plain, "GET", "/metrics", 200, `podmeter_build_info{goversion=`},
		{plain, "GET", "/metrics", 200, "go_goroutines"},
		{plain, "GET", "/metrics", 200, "process_resident_memory_bytes"},
		{plain, "GET", "/metrics", 200, "promhttp_metric_handler_errors_total"},
		{plain, "POST", "/metrics", 405, ""},
		{plain, "GET", "/healthz", 200, "ok\n"},
		{plain, "HEAD", "/healthz", 200, ""},
		{healthy, "GET", "/healthz", 200, "ok\n"},
		{stuck, "GET", "/healthz", 503, "no drain for 1m\n"},
		{stuck, "GET", "/readyz", 200, "ready\n"},
		{plain, "GET", "/readyz", 200, "ready\nidentity: none\n"},
		{plain, "GET", "/nothing", 404, ""},
		{plain, "GET", "/page/state", 404, ""},
		{withPage, "GET", "/", 200, "page of /"},
		{withPage, "GET", "/page/state", 200, "page of /page/state"},
		{withPage, "POST", "/page/state", 405, ""},
		{withPage, "GET", "/pages", 404, ""},
		{withPage, "GET", "/metrics", 200, "go_goroutines"},
		{plain, "GET", "/debug/pprof/", 404, ""},
		{plain, "GET", "/debug/pprof/heap", 404, ""},
		{withPprof, "GET", "/debug/pprof/", 200, "goroutine"},
		{withPprof, "GET", "/debug/pprof/cmdline", 200, "metrics"},
		{withPprof, "GET", "/", 200, "debug/pprof/heap"},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			w := request(c.handler, c.method, c.path)
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.body) {
				t.Errorf("got %d %q, want %d with %q", w.Code, w.Body, c.code, c.body)
			}
		})
	}
}

func TestReadiness(t *testing.T) {
	for _, c := range []struct {
		name string
		Readiness
		code int
		body string
	}{
		{"ready", Readiness{IdentitySource: "kubernetes", IdentityAge: 1500 * time.Millisecond}, 200,
			"ready\nidentity: kubernetes, current 2s ago\n"},
		{"old", Readiness{IdentitySource: "kubernetes", IdentityAge: 26 * time.Hour}, 200,
			"ready\nidentity: kubernetes, current 26h0m0s ago\n"},
		{"not", Readiness{Missing: []string{"cannot list pods", "no drain yet"}, IdentitySource: "kubernetes", IdentityAge: -1}, 503,
			"not ready\nmissing: cannot list pods\nmissing: no drain yet\nidentity: kubernetes\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := serverOptions(t, &source{})
			o.Readiness = func() Readiness { return c.Readiness }
			w := request(newServer(t, o).Handler(), "GET", "/readyz")
			if w.Code != c.code || w.Body.String() != c.body {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, c.code, c.body)
			}
		})
	}
}

func TestNegotiation(t *testing.T) {
	handler := newServer(t, serverOptions(t, &source{snapshot: handMade()})).Handler()
	for _, c := range []struct{ name, accept, encoding, contentType string }{
		{"text", "", "", "text/plain; version=0.0.4"},
		{"OpenMetrics", "application/openmetrics-text;version=1.0.0", "", "application/openmetrics-text; version=1.0.0"},
		{"protobuf", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "",
			"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"},
		{"gzip", "", "gzip", "text/plain; version=0.0.4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := request(handler, "GET", "/metrics", "Accept", c.accept, "Accept-Encoding", c.encoding)
			if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, c.contentType) {
				t.Errorf("type: got %q, want %q", got, c.contentType)
			}
			if got := w.Header().Get("Content-Encoding"); got != c.encoding {
				t.Errorf("encoding: got %q, want %q", got, c.encoding)
			}
		})
	}
}

// What is wrong with a web configuration is said before anything listens.
func TestBadWebConfig(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"missing", "", "no such file"},
		{"no YAML", "tls_server_config: [", "yaml"},
		{"unknown key", "tls: {}", "tls not found"},
		{"no key", "tls_server_config: {cert_file: x.pem}", "missing one of key or key_file"},
		{"no certificate", "tls_server_config: {cert_file: x.pem, key_file: y.pem}", "x.pem"},
		{"password in plain", "basic_auth_users: {scraper: secret}", "bcrypt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := serverOptions(t, &source{})
			o.WebConfigFile = filepath.Join(t.TempDir(), "web.yaml")
			if c.content != "" {
				write(t, o.WebConfigFile, c.content)
			}
			_, err := NewServer(o)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), o.WebConfigFile) {
				t.Errorf("got %v, want %q and the file's name", err, c.want)
			}
		})
	}
}

// A web configuration, or a file that it names, which would hang the server is refused by
// name; files by symbolic links, as Kubernetes mounts them, are fine.
func TestWebConfigOfFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		write(t, path, content)
		return path
	}
	if err := os.Symlink(file("data", "basic_auth_users: {scraper: "+secretHash+"}"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, refused string }{
		{"link", filepath.Join(dir, "link"), ""},
		{"pipe", pipe, pipe},
		{"device", "/dev/zero", "/dev/zero"},
		{"a certificate that is a pipe", file("a", "tls_server_config: {cert_file: pipe, key_file: data}"), pipe},
		{"a key that is a device", file("b", "tls_server_config: {cert_file: data, key_file: /dev/zero}"), "/dev/zero"},
		{"a CA that is a pipe", file("c", "tls_server_config: {cert_file: data, key_file: data, client_ca_file: pipe}"), pipe},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := serverOptions(t, &source{})
			o.WebConfigFile = c.path
			_, err := NewServer(o)
			if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("got %v, want %q refused", err, c.refused)
			}
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// secretHash is bcrypt of "secret", of the lowest cost.
const secretHash = "$2a$04$DwhtXoU2exfCg7ANXA7oHueUYO7hKgXd3sKguKVG32QA3yo8jnQcy"

func TestTLSAndBasicAuth(t *testing.T) {
	directory := t.TempDir()
	trusted := makeCertificate(t, directory)
	o := serverOptions(t, &source{snapshot: handMade()})
	o.Page = http.NotFoundHandler()
	o.WebConfigFile = filepath.Join(directory, "web.yaml")
	write(t, o.WebConfigFile, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n"+
		"basic_auth_users: {scraper: "+secretHash+"}\n")
	address := serve(t, newServer(t, o))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for _, c := range []struct {
		name, url, password string
		code                int
	}{
		{"right password", "https://" + address + "/metrics", "secret", http.StatusOK},
		{"wrong password", "https://" + address + "/metrics", "guess", http.StatusUnauthorized},
		{"no password", "https://" + address + "/readyz", "", http.StatusUnauthorized},
		{"page without a password", "https://" + address + "/", "", http.StatusUnauthorized},
		{"its state without one", "https://" + address + "/page/state", "", http.StatusUnauthorized},
		{"page", "https://" + address + "/", "secret", http.StatusNotFound},
		{"no TLS", "http://" + address + "/metrics", "secret", http.StatusBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequest("GET", c.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.password != "" {
				r.SetBasicAuth("scraper", c.password)
			}
			response, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if response.StatusCode != c.code {
				t.Errorf("got %d, want %d", response.StatusCode, c.code)
			}
		})
	}
	strange := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool()}}}
	if _, err := strange.Get("https://" + address + "/metrics"); !errors.As(err, new(*tls.CertificateVerificationError)) {
		t.Errorf("untrusted certificate: got %v, want it to be refused", err)
	}
}

func TestConcurrentScrapes(t *testing.T) {
	source := newTable(flows.TableOptions{FlowLimit: 100, ExternalLimit: 100, FlowIdle: time.Hour, SeriesGrace: time.Hour}, flows.Optional{})
	source.publish(t, newEpoch(0))
	url := "http://" + serve(t, newServer(t, serverOptions(t, source))) + "/metrics"
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 5 {
				response, err := client.Get(url)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), "podmeter_pod_") {
					t.Errorf("scrape: got %d, %v and %d bytes, want 200 with pods", response.StatusCode, err, len(body))
				}
			}
		})
	}
	for number := range 20 {
		source.publish(t, newEpoch(number))
	}
	wait.Wait()
}

// blocking is a source whose snapshots wait until they are let go.
type blocking struct{ entered, release chan struct{} }

func (b *blocking) Snapshot(ctx context.Context) (*flows.Snapshot, error) {
	b.entered <- struct{}{}
	select {
	case <-b.release:
		return &flows.Snapshot{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
func (*blocking) Agent() Agent { return Agent{} }

// Those that ask while an answer is made get the next one, together; and the answer of one
// is no other's.
func TestScrapesShareWork(t *testing.T) {
	const readers = 20
	source := &blocking{make(chan struct{}, readers), make(chan struct{})}
	handler := newServer(t, serverOptions(t, source)).Handler()
	var wait sync.WaitGroup
	ask := func(accept string) {
		wait.Go(func() {
			w := request(handler, "GET", "/metrics", "Accept", accept)
			if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), cmp.Or(accept, "text/plain")) {
				t.Errorf("got %d, %q, want 200 in the format asked for", w.Code, w.Header().Get("Content-Type"))
			}
		})
	}
	ask("")
	<-source.entered
	for range readers {
		ask("")
		ask("application/openmetrics-text")
	}
	if got := request(handler, "GET", "/healthz").Code; got != http.StatusOK {
		t.Errorf("health: got %d, want 200", got)
	}
	awaitAsking(t, 1+2*readers)
	close(source.release)
	wait.Wait()
	if got := 1 + len(source.entered); got > 5 { // one of each format, and one more of each for who came late
		t.Errorf("snapshots for %d requests: got %d, want a few", 1+2*readers, got)
	}
}

// However many formats are asked for, few answers are made: whoever asks for all of them does
// not keep a scrape waiting for long. Each is in the format that its Content-Type tells.
func TestFormatsAreFew(t *testing.T) {
	const formats = 6 * 4
	source := &blocking{make(chan struct{}, 1+formats), make(chan struct{})}
	handler := newServer(t, serverOptions(t, source)).Handler()
	var wait sync.WaitGroup
	ask := func(accept, want string) {
		wait.Go(func() {
			w := request(handler, "GET", "/metrics", "Accept", accept)
			if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || !strings.HasPrefix(got, want) || !strings.HasSuffix(got, accept[strings.LastIndex(accept, "escaping"):]) {
				t.Errorf("%s: got %d, %q, want 200 as asked for", accept, w.Code, got)
			}
		})
	}
	ask("text/plain; escaping=underscores", "text/plain")
	<-source.entered
	for _, escaping := range []string{"allow-utf-8", "underscores", "dots", "values"} {
		for format, want := range map[string]string{
			"application/openmetrics-text; version=1.0.0": "application/openmetrics-text; version=1.0.0",
			"application/openmetrics-text; version=0.0.1": "application/openmetrics-text; version=0.0.1",
			"text/plain; version=0.0.4":                   "text/plain; version=0.0.4",
			protobuf + "; encoding=delimited":             protobuf,
			// Nobody scrapes these: they are for people.
			protobuf + "; encoding=text, text/plain":         "text/plain",
			protobuf + "; encoding=compact-text, text/plain": "text/plain",
		} {
			ask(format+"; escaping="+escaping, want)
		}
	}
	awaitAsking(t, 1+formats)
	close(source.release)
	wait.Wait()
	if got := len(source.entered); got > 9 {
		t.Errorf("answers for %d formats: got %d, want two for each of four, and one for who came late", formats, got)
	}
}

// protobuf is the type of formats in protobuf.
const protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily"

// awaitAsking waits until so many goroutines ask for an answer.
func awaitAsking(t *testing.T, want int) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		got := bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte("(*scrapes).answer("))
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %d requests that wait for an answer, want %d", got, want)
		}
	}
}

func TestAcceptsGzip(t *testing.T) {
	for _, c := range []struct {
		value string
		want  bool
	}{
		{"", false}, {"gzip", true}, {"deflate, GZIP;q=0.5", true}, {"gzip;q=0", false}, {"gzip; q=0.0, *", false}, {"*", true},
		{"*;q=0", false}, {"identity", false}, {"x-gzip", false}, {"br,*;q=0.1", true},
	} {
		if got := acceptsGzip([]string{c.value}); got != c.want {
			t.Errorf("%q: got %v, want %v", c.value, got, c.want)
		}
	}
}
