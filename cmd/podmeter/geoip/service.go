// SPDX-License-Identifier: Apache-2.0

package geoip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/podmeter/podmeter/flows/geo"
	"github.com/podmeter/podmeter/internal/ratelog"
	"github.com/podmeter/podmeter/metrics"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
)

// Options are what a [Service] needs besides its configuration.
type Options struct {
	// Version is shown on the landing page.
	Version string
	Logger  *slog.Logger
}

// Service asks and serves.
type Service struct {
	config   Config
	log      *slog.Logger
	asker    *asker
	places   *geo.Databases
	placer   placer
	answer   answer
	own      own
	notices  *notices
	outage   ratelog.Outage // of Prometheus
	server   *metrics.Server
	listener net.Listener
}

// New opens the databases of a valid configuration and listens. The error names
// each file that cannot be used, or the address.
func New(config Config, options Options) (*Service, error) {
	s := &Service{config: config, log: options.Logger, own: newOwn(), notices: newNotices(options.Logger), outage: ratelog.Outage{
		Log: options.Logger, Level: slog.LevelError, Wrong: "Prometheus gives no answer, the last good one is kept", Over: "Prometheus answers again",
	}}
	if err := s.open(options); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Service) open(options Options) (err error) {
	if s.asker, err = newAsker(s.config); err != nil {
		return err
	}
	if s.places, err = geo.Open(geo.Options{Paths: s.config.GeoIP, PostalCodes: true, Logger: s.log}); err != nil {
		return err
	}
	s.placer = newPlacer(s.places, s.config)
	registry, err := s.registry()
	if err != nil {
		return err
	}
	s.server, err = metrics.NewServer(metrics.ServerOptions{
		Registry: registry, Readiness: s.readiness, WebConfigFile: s.config.WebConfigFile, PageHosts: s.config.PageHosts,
		Version: options.Version, Logger: s.log,
	})
	if err != nil {
		return err
	}
	if s.listener, err = net.Listen("tcp", s.config.Listen); err != nil {
		return fmt.Errorf("%w; 'ss -ltnp' shows who listens there, --listen chooses another address", err)
	}
	return nil
}

func (s *Service) registry() (*prometheus.Registry, error) {
	registry := prometheus.NewRegistry()
	err := errors.Join(
		registry.Register(newCollector(&s.answer, s.config.Labels, time.Now)),
		registry.Register(s.own.queries), registry.Register(s.own.rows), registry.Register(s.own.took),
		registry.Register(collectors.NewGoCollector()),
		registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
	)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return registry, nil
}

// readiness is that there was an answer; how old it is, is a metric.
func (s *Service) readiness() metrics.Readiness {
	if _, at := s.answer.get(); at.IsZero() {
		return metrics.Readiness{Missing: []string{"an answer of Prometheus"}}
	}
	return metrics.Readiness{}
}

// Addr is where it listens.
func (s *Service) Addr() net.Addr { return s.listener.Addr() }

// Run asks and serves until the context ends, and closes the service. It is
// called once.
func (s *Service) Run(ctx context.Context) error {
	s.log.Info("serving", "address", s.Addr(), "query", s.config.Query, "interval", s.config.Interval)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.server.Serve(ctx, s.listener) })
	group.Go(func() error { return s.places.Watch(ctx) })
	group.Go(func() error { s.poll(ctx); return nil })
	return errors.Join(group.Wait(), s.Close())
}

// Close gives back what New took. It may be called again.
func (s *Service) Close() error {
	var errs []error
	if s.asker != nil {
		s.asker.close()
	}
	if s.places != nil {
		errs = append(errs, s.places.Close())
	}
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// poll asks at once and then at every interval.
func (s *Service) poll(ctx context.Context) {
	ticker := time.NewTicker(s.config.Interval)
	defer ticker.Stop()
	for {
		s.refresh(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// refresh asks once. An error leaves the last good answer.
func (s *Service) refresh(ctx context.Context) {
	began := time.Now()
	vector, warnings, err := s.asker.ask(ctx)
	if ctx.Err() != nil { // the end, and no fault of Prometheus
		return
	}
	took := time.Since(began)
	result := resultOf(err)
	s.own.queries.WithLabelValues(result).Inc()
	s.own.took.Observe(took.Seconds())
	s.log.Debug("asked", "query", s.config.Query, "took", took, "result", result, "rows", len(vector))
	s.outage.Set(err, "result", result)
	if err != nil {
		return
	}
	rows, t := s.placer.rows(vector)
	s.answer.set(rows, time.Now())
	s.count(t, len(vector), warnings)
}

// The things that may be wrong with an answer.
var (
	noteEmpty   = note{slog.LevelWarn, "the query's answer has no rows", "the query's answer has rows again"}
	noteWarned  = note{slog.LevelWarn, "Prometheus warns of the query", "Prometheus does not warn of the query any more"}
	noteLabel   = note{slog.LevelWarn, "rows without the label of the address are left out; --ip-label chooses another", "all rows have the label of the address again"}
	noteAddress = note{slog.LevelWarn, "rows whose address is none are left out", "all rows have an address again"}
	notePublic  = note{slog.LevelInfo, "rows whose address is not public are left out, as it is in no particular place", "all addresses are public again"}
	noteNumber  = note{slog.LevelWarn, "rows that are histograms are left out", "no row is a histogram any more"}
)

// count counts and logs what came of the rows of an answer.
func (s *Service) count(t tally, rows int, warnings promv1.Warnings) {
	for result, n := range t.rows {
		s.own.rows.WithLabelValues(result).Add(float64(n))
	}
	s.notices.set(noteEmpty, rows == 0)
	s.notices.set(noteWarned, len(warnings) > 0, "warnings", []string(warnings))
	for result, what := range map[string]note{
		rowNoLabel: noteLabel, rowNoAddress: noteAddress, rowNotPublic: notePublic, rowHistogram: noteNumber,
	} {
		s.notices.set(what, t.rows[result] > 0, "rows", t.rows[result], "of", rows, "label", s.config.IPLabel, "first", t.example[result])
	}
}
