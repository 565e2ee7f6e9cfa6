// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
)

const (
	// scrapesInFlight is the most scrapes at once: a pair of servers, somebody
	// looking, and room for one that hangs.
	scrapesInFlight = 8

	// A reader that is slower than this is cut off; bodies of requests there are
	// none. The time to write has to hold a slow drain and a large scrape.
	readTimeout  = 10 * time.Second
	writeTimeout = time.Minute
	idleTimeout  = 5 * time.Minute

	defaultShutdownTimeout = 5 * time.Second
)

// ServerOptions are what a [Server] needs.
type ServerOptions struct {
	// Registry is gathered for /metrics; the handler's own counters are added.
	Registry *prometheus.Registry
	// Readiness is asked at each request for /readyz.
	Readiness func() Readiness
	// Health is asked at each request for /healthz: an error says why a restart would
	// help. It may be nil: whoever answers is healthy.
	Health func() error
	// WebConfigFile is exporter-toolkit's, for TLS and basic authentication;
	// none if empty.
	WebConfigFile string
	// Pprof is whether /debug/pprof/ is served.
	Pprof bool
	// Page serves / and everything below /page/; nil for a landing page with links.
	Page http.Handler
	// Version is shown on the landing page.
	Version string
	// ShutdownTimeout bounds the wait for requests at the end; 5 s if zero.
	ShutdownTimeout time.Duration
	Logger          *slog.Logger
}

// Server serves metrics, health and readiness.
type Server struct {
	options ServerOptions
	handler http.Handler
}

// NewServer returns a server for the options. An error means that the web
// configuration file is unreadable or wrong, or names such a certificate.
func NewServer(options ServerOptions) (*Server, error) {
	options.ShutdownTimeout = cmp.Or(options.ShutdownTimeout, defaultShutdownTimeout)
	if err := checkWebConfig(options.WebConfigFile); err != nil {
		return nil, fmt.Errorf("check web configuration file %s: %w", options.WebConfigFile, err)
	}
	mux, err := newMux(options)
	if err != nil {
		return nil, fmt.Errorf("make landing page: %w", err)
	}
	return &Server{options: options, handler: mux}, nil
}

// Handler returns what Serve serves, to be served with more by ServePlain.
func (s *Server) Handler() http.Handler { return s.handler }

// Serve serves on the listener until the context ends, then waits for running
// requests for as long as the options say, and cuts off what is left. It closes
// the listener. It may be called for several listeners.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	return s.serve(ctx, listener, s.handler, func(server *http.Server) error {
		return web.Serve(listener, server, &web.FlagConfig{WebConfigFile: &s.options.WebConfigFile}, s.options.Logger)
	})
}

// ServePlain serves a handler as Serve does its own, without TLS and
// authentication: for a socket that is protected by its mode.
func (s *Server) ServePlain(ctx context.Context, listener net.Listener, handler http.Handler) error {
	return s.serve(ctx, listener, handler, func(server *http.Server) error { return server.Serve(listener) })
}

// serve runs a server until the context ends.
func (s *Server) serve(ctx context.Context, listener net.Listener, handler http.Handler, run func(*http.Server) error) error {
	server := &http.Server{
		Handler:     handler,
		ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(s.options.Logger.Handler(), slog.LevelWarn),
	}
	stopped := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.shutdown(ctx, server)
	})
	err := run(server)
	listener.Close() // which web.Serve may not have come to
	if !cancel() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
}

func (s *Server) shutdown(ctx context.Context, server *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.ShutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		s.options.Logger.Warn("wait for requests to end: cut off", "error", err)
		server.Close()
	}
}

func newMux(options ServerOptions) (*http.ServeMux, error) {
	mux := http.NewServeMux()
	if err := handleRoot(mux, options); err != nil {
		return nil, err
	}
	mux.Handle("GET /metrics", newMetricsHandler(options))
	mux.Handle("GET /healthz", healthHandler(options.Health))
	mux.Handle("GET /readyz", readinessHandler(options.Readiness))
	if options.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux, nil
}

func handleRoot(mux *http.ServeMux, options ServerOptions) error {
	if options.Page != nil {
		mux.Handle("GET /{$}", options.Page)
		mux.Handle("GET /page/", options.Page)
		return nil
	}
	landing, err := newLandingPage(options)
	if err != nil {
		return err
	}
	mux.Handle("GET /{$}", landing)
	return nil
}

// newMetricsHandler has no timeout of its own, which would hold each response
// in memory and leave a goroutine behind: what may hang is the snapshot and the
// reader, and both are bounded. Nor are gathers shared between scrapes, as a
// slow reader would keep an old one alive for the others.
func newMetricsHandler(options ServerOptions) http.Handler {
	return promhttp.HandlerFor(options.Registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(options.Logger.Handler(), slog.LevelError),
		ErrorHandling:       promhttp.ContinueOnError,
		Registry:            options.Registry,
		OfferedCompressions: []promhttp.Compression{promhttp.Identity, promhttp.Gzip},
		MaxRequestsInFlight: scrapesInFlight,
		EnableOpenMetrics:   true,
	})
}

func newLandingPage(options ServerOptions) (http.Handler, error) {
	return web.NewLandingPage(web.LandingConfig{
		Name:        "podmeter",
		Description: "Packet-level flow meter for Kubernetes nodes",
		Version:     options.Version,
		Profiling:   strconv.FormatBool(options.Pprof),
		Links: []web.LandingLinks{
			{Address: "/metrics", Text: "Metrics"},
			{Address: "/readyz", Text: "Readiness", Description: "and what it waits for"},
			{Address: "/healthz", Text: "Health"},
		},
	})
}
