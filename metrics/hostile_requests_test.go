// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/podmeter/podmeter/internal/servertest"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// protected are the options of a server with TLS and a password.
func protected(t *testing.T, s Source) (ServerOptions, *tls.Config) {
	directory := t.TempDir()
	trusted := makeCertificate(t, directory)
	o := serverOptions(t, s)
	o.WebConfigFile = filepath.Join(directory, "web.yaml")
	write(t, o.WebConfigFile, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {scraper: "+secretHash+"}\n")
	return o, &tls.Config{RootCAs: trusted}
}

// A password as long as one likes is refused before it is compared and remembered.
func TestLongPasswords(t *testing.T) {
	o, config := protected(t, &source{snapshot: handMade()})
	address := serve(t, newServer(t, o))
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	for size, want := range map[int][]int{
		700_000: {http.StatusRequestHeaderFieldsTooLarge, 0}, // 0: ended while it was sent
		3000:    {http.StatusUnauthorized},
		6:       {http.StatusUnauthorized},
	} {
		r, err := http.NewRequest(http.MethodGet, "https://"+address+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("scraper", strings.Repeat("x", size))
		got := 0
		if response, err := (&http.Client{Transport: transport}).Do(r); err == nil {
			response.Body.Close()
			got = response.StatusCode
		}
		if !(got == want[0] || len(want) > 1 && got == want[1]) {
			t.Errorf("password of %d bytes: got %d, want one of %v", size, got, want)
		}
	}
	if got := refusedBy(t, o, "login"); got != 1 {
		t.Errorf("refused logins: got %v, want 1", got)
	}
}

// What connections with garbage write to the log is some lines, and their number at the end;
// nobody's password or key is in it.
func TestPeersCannotFillTheLog(t *testing.T) {
	o, config := protected(t, &source{snapshot: handMade()})
	var out servertest.Log
	o.Logger = slog.New(slog.NewTextHandler(&out, nil))
	t.Run("served", func(t *testing.T) {
		address := serve(t, newServer(t, o))
		for n := range 300 {
			c := dialFrom(t, fmt.Sprintf("127.0.0.%d", 2+n%4), address)
			fmt.Fprintf(c, "GET /\x1b[31m%d HTTP/1.1\r\n\r\n", n)
			io.Copy(io.Discard, c) // until it is ended
		}
		transport := &http.Transport{TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		r, _ := http.NewRequest(http.MethodGet, "https://"+address+"/metrics", nil)
		r.SetBasicAuth("scraper", "secret")
		response, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("a scrape beside it: got %v, %v, want 200", response, err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	})
	text := out.String()
	if got := strings.Count(text, "\n"); got > 40 {
		t.Errorf("got %d lines, want a few:\n%.2000s", got, text)
	}
	if !strings.Contains(text, "left-out=") {
		t.Errorf("got no number of what was left out:\n%s", text)
	}
	key, err := os.ReadFile(filepath.Join(filepath.Dir(o.WebConfigFile), "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"\x1b", "secret", secretHash, strings.Split(string(key), "\n")[1]} {
		if strings.Contains(text, secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

// A browser that another site has led here gets nothing, by any path; a scraper may use any
// name, and a socket of this host has none.
func TestNamesOfTheServer(t *testing.T) {
	o := serverOptions(t, &source{snapshot: handMade()})
	o.Page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") })
	o.PageHosts, o.Node = []string{"podmeter.example"}, func() string { return "node-a" }
	server := newServer(t, o)
	address := serve(t, server)
	const browser = "User-Agent: Mozilla/5.0\r\nAccept-Language: en\r\nConnection: keep-alive\r\n"
	for _, c := range []struct {
		path, host, more string
		code             int
	}{
		{"/", "evil.example:9739", browser, 421},
		{"/page/state", "evil.example:9739", browser, 421},
		{"/page/state", "evil.example:9739", "", 421},
		{"/metrics", "evil.example:9739", browser, 421},
		{"/readyz", "evil.example:9739", browser, 421},
		{"/metrics", "evil.example:9739", "", 200},
		{"/", "127.0.0.1:9739", browser, 200},
		{"/", "localhost:3000", browser, 200},
		{"/", "node-a:9739", browser, 200},
		{"/page/state", "podmeter.example", browser, 200},
		{"/metrics", "podmeter.example", browser, 200},
	} {
		conn := dialFrom(t, "127.0.0.1", address)
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", c.path, c.host, c.more)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || response.StatusCode != c.code {
			t.Errorf("%s of %s with %q: got %v, %v, want %d", c.path, c.host, c.more, response, err, c.code)
		}
	}
	if got := request(server.Handler(), "GET", "http://unix/page/state").Code; got != http.StatusOK {
		t.Errorf("by the socket: got %d, want 200", got)
	}
}

// Profiles are two at a time.
func TestProfilesInFlight(t *testing.T) {
	o := serverOptions(t, &source{})
	o.Pprof = true
	handler := newServer(t, o).Handler()
	entered, release := make(chan struct{}), make(chan struct{})
	limited := inFlight(profilesInFlight, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-release
	}))
	var wait sync.WaitGroup
	for range profilesInFlight {
		wait.Go(func() { request(limited, "GET", "/") })
		<-entered
	}
	if got := request(limited, "GET", "/").Code; got != http.StatusServiceUnavailable {
		t.Errorf("beyond: got %d, want 503", got)
	}
	close(release)
	wait.Wait()
	if got := request(handler, "GET", "/debug/pprof/cmdline").Code; got != http.StatusOK {
		t.Errorf("got %d, want 200", got)
	}
}

// Each reason is there from the start, and there are no others.
func TestRefusalsAreThereFromTheStart(t *testing.T) {
	o := serverOptions(t, &source{snapshot: handMade()})
	newServer(t, o)
	if got, err := testutil.GatherAndCount(o.Registry, "podmeter_http_refused_total"); err != nil || got != 12 {
		t.Errorf("got %d series, %v, want 12", got, err)
	}
}
