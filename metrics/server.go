// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/podmeter/podmeter/metrics/guard"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
)

const (
	defaultShutdownTimeout = 5 * time.Second

	// profilesInFlight is the most requests below /debug/pprof/ at once: one that takes
	// half a minute, and another.
	profilesInFlight = 2
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
	// PageHosts are names by which browsers may ask, besides addresses, localhost and Node.
	PageHosts []string
	// Node returns this node's name; it may be nil.
	Node func() string
	// Version is shown on the landing page.
	Version string
	// ShutdownTimeout bounds the wait for requests at the end; 5 s if zero.
	ShutdownTimeout time.Duration
	Logger          *slog.Logger
}

// Server serves metrics, health and readiness, within the bounds of package guard.
type Server struct {
	options ServerOptions
	guard   *guard.Guard
	handler http.Handler
}

// NewServer returns a server for the options. An error means that the web
// configuration file is unreadable or wrong, or names such a certificate.
func NewServer(options ServerOptions) (*Server, error) {
	options.ShutdownTimeout = cmp.Or(options.ShutdownTimeout, defaultShutdownTimeout)
	if err := checkWebConfig(options.WebConfigFile); err != nil {
		return nil, fmt.Errorf("check web configuration file %s: %w", options.WebConfigFile, err)
	}
	g, err := guard.New(guard.Options{
		Registerer: options.Registry, Logger: options.Logger, Logins: options.WebConfigFile != "",
	})
	if err != nil {
		return nil, err
	}
	options.Logger = g.Logger()
	mux, err := newMux(options)
	if err != nil {
		return nil, fmt.Errorf("make landing page: %w", err)
	}
	return &Server{options: options, guard: g, handler: mux}, nil
}

// Handler returns what Serve serves, to be served with more by ServePlain.
func (s *Server) Handler() http.Handler { return s.handler }

// Serve serves on the listener until the context ends, then waits for running
// requests for as long as the options say, and cuts off what is left. It closes
// the listener. It may be called for several listeners.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	hosts := guard.Hosts{Names: s.options.PageHosts, Node: s.options.Node, Pages: s.isPage}
	handler := s.guard.Check(hosts, s.handler)
	return s.serve(ctx, listener, handler, func(server *http.Server, listener net.Listener) error {
		return web.Serve(listener, server, &web.FlagConfig{WebConfigFile: &s.options.WebConfigFile}, slog.New(webLog{s.options.Logger.Handler()}))
	})
}

// ServePlain serves a handler as Serve does its own, without TLS and
// authentication: for a socket that is protected by its mode.
func (s *Server) ServePlain(ctx context.Context, listener net.Listener, handler http.Handler) error {
	return s.serve(ctx, listener, handler, (*http.Server).Serve)
}

// isPage reports whether a request is for what browsers alone ask for.
func (s *Server) isPage(r *http.Request) bool {
	return s.options.Page != nil && (r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, "/page/"))
}

// serve runs a server until the context ends.
func (s *Server) serve(ctx context.Context, listener net.Listener, handler http.Handler, run func(*http.Server, net.Listener) error) error {
	server := &http.Server{Handler: handler}
	guarded, release := s.guard.Protect(server, listener)
	defer release()
	stopped := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.shutdown(ctx, server)
	})
	err := run(server, guarded)
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
		mux.Handle("/debug/pprof/", inFlight(profilesInFlight, newProfiles()))
	}
	return mux, nil
}

func newProfiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", commandName)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// commandName is the command line without its arguments: a URL among them may have a
// password.
func commandName(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	io.WriteString(w, os.Args[0]) // the client may be gone
}

// inFlight answers with 503 what comes while as many requests are at work.
func inFlight(most int, next http.Handler) http.Handler {
	places := make(chan struct{}, most)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			next.ServeHTTP(w, r)
		default:
			http.Error(w, fmt.Sprintf("Only %d of these at once.", most), http.StatusServiceUnavailable)
		}
	})
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

// newMetricsHandler makes each answer in memory, so that a slow reader holds neither the
// snapshot nor what was gathered from it.
func newMetricsHandler(options ServerOptions) http.Handler {
	handler := func(gatherer prometheus.Gatherer) http.Handler {
		return promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
			ErrorLog:           gatherLog{options.Logger},
			ErrorHandling:      promhttp.ContinueOnError,
			Registry:           options.Registry,
			DisableCompression: true,
			EnableOpenMetrics:  true,
		})
	}
	return newScrapes(handler(summarized{options.Registry}), handler(options.Registry))
}

// gatherLog takes what promhttp has to say, whose text varies.
type gatherLog struct{ log *slog.Logger }

// Println implements [promhttp.Logger].
func (g gatherLog) Println(v ...any) { g.log.Error("answer a scrape", "error", fmt.Sprint(v...)) }

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
