// SPDX-License-Identifier: Apache-2.0

package httpfile

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/redirect"
	"github.com/prometheus/common/config"
)

// tokenClient is a client that asks a server of tokens, with a URL that it asks with one.
func tokenClient(t *testing.T, tokens http.HandlerFunc) (client *http.Client, url string) {
	t.Helper()
	server := httptest.NewServer(tokens)
	t.Cleanup(server.Close)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer ticket" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(receiver.Close)
	dir := t.TempDir()
	write(t, dir, "http.yml", fmt.Sprintf("oauth2: {client_id: a, client_secret: secret, token_url: '%s/token'}", server.URL))
	client, err := Client(filepath.Join(dir, "http.yml"), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client, receiver.URL
}

func ticket(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"access_token": "ticket", "token_type": "bearer"}`) // the client may be gone
}

func TestToken(t *testing.T) {
	client, url := tokenClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			http.Redirect(w, r, "/there", http.StatusTemporaryRedirect)
			return
		}
		ticket(w, r)
	})
	response, err := client.Get(url)
	if err != nil || response.StatusCode != http.StatusOK || response.Body.Close() != nil {
		t.Errorf("got %v, %v, want 200", response, err)
	}
}

// The secret does not go where a token's server leads.
func TestTokenRedirectsStayOnTheHost(t *testing.T) {
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		ticket(w, r)
	}))
	t.Cleanup(other.Close)
	for _, to := range []string{other.URL, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)} {
		client, url := tokenClient(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, to+"/latest", http.StatusTemporaryRedirect)
		})
		_, err := client.Get(url)
		if err == nil || !strings.Contains(err.Error(), redirect.ErrRefused.Error()) || asked.Load() != 0 {
			t.Errorf("to %s: got %v, and %d requests, want a refused redirect and none", to, err, asked.Load())
		}
	}
}

// A token's server that does not answer is not waited for for ever.
func TestTokenIsNotWaitedFor(t *testing.T) {
	effort.Long(t, "waits for 10 s")
	end := make(chan struct{})
	client, url := tokenClient(t, func(http.ResponseWriter, *http.Request) { <-end })
	defer close(end)
	client.Timeout = time.Second
	done := make(chan error)
	go func() {
		_, err := client.Get(url)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("got an answer, want an error")
		}
	case <-time.After(time.Minute):
		t.Error("got nothing within a minute, want an error")
	}
}

func TestIsTokenServer(t *testing.T) {
	for _, test := range []struct {
		url, address string
		want         bool
	}{
		{"https://login.test/token", "login.test:443", true},
		{"https://LOGIN.test/token", "login.test:443", true},
		{"http://login.test/token", "login.test:80", true},
		{"http://login.test/token", "login.test:443", true}, // to which it may lead
		{"http://login.test:8080/token", "login.test:8080", true},
		{"http://[2001:db8::1]/token", "[2001:db8::1]:80", true},
		{"https://b\u00fccher.test/token", "xn--bcher-kva.test:443", true},
		{"https://b\u00fccher.test/token", "127.0.0.1:443", false},
		{"https://login.test/token", "login.test:80", false},
		{"http://login.test:8080/token", "login.test:443", false},
		{"https://login.test/token", "127.0.0.1:443", false},
		{"https://login.test/token", "login.test", false},
		{"http://[::1", "[::1]:80", false},
	} {
		if got := isTokenServer(&config.OAuth2{TokenURL: test.url}, test.address); got != test.want {
			t.Errorf("%s: %s: got %v, want %v", test.url, test.address, got, test.want)
		}
	}
	if !isTokenServer(&config.OAuth2{TokenURL: "https://login.test/", ProxyConfig: config.ProxyConfig{ProxyFromEnvironment: true}}, "proxy.test:3128") {
		t.Error("got that a proxy is none, want that it may be one")
	}
}
