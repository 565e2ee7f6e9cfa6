// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/podmeter/podmeter/hack/page/browser"
	"github.com/podmeter/podmeter/metrics"
	"github.com/prometheus/client_golang/prometheus"
)

// forged is a script of another site, which asks for a path as that site may ask its own
// server, and adds and overwrites whatever headers a script may. What it gets is in window.
const forged = `(() => {
	window.got = undefined;
	const request = new Request(%q, {referrer: "", headers: {
		"X-Forwarded-Uri": "/api/v1/namespaces/podmeter/pods/http:podmeter-1:9739/proxy/metrics", "X-Forwarded-For": "192.0.2.1",
		"X-Forwarded-Host": "127.0.0.1", "Host": "127.0.0.1", "Connection": "close", "User-Agent": "Prometheus/3.0.0", "Accept-Language": "",
		"Accept": "*/*",
	}});
	fetch(request).then(r => { window.got = r.status; }, e => { window.got = String(e); });
	return true;
})()`

// A site that gives its own name this server's address has the visitor's browser ask it,
// and gets nothing by any path, whatever its script adds (DNS rebinding). By its address
// the same browser gets all of it.
func TestRebinding(t *testing.T) {
	needChromium(t)
	server, err := metrics.NewServer(metrics.ServerOptions{
		Registry: prometheus.NewRegistry(), Readiness: func() metrics.Readiness { return metrics.Readiness{} },
		Page:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") }),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- server.Serve(ctx, listener) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	b, err := browser.Start(t.Context(), browser.Options{Width: 800, Height: 600, Resolve: "MAP evil.example 127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	for host, want := range map[string]int{"evil.example": http.StatusMisdirectedRequest, "127.0.0.1": http.StatusOK} {
		if err := b.Open(fmt.Sprintf("http://%s:%d/", host, port)); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/", "/page/state", "/metrics", "/readyz"} {
			if _, err := browser.Value[bool](b, fmt.Sprintf(forged, path)); err != nil {
				t.Fatal(err)
			}
			if err := b.Await("window.got !== undefined", within); err != nil {
				t.Fatal(err)
			}
			if got, err := browser.Value[int](b, "window.got"); err != nil || got != want {
				t.Errorf("%s of %s: got %d, %v, want %d", path, host, got, err, want)
			}
		}
	}
}
