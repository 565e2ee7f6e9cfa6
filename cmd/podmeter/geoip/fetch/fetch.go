// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/podmeter/podmeter/flows/geo"
	"github.com/podmeter/podmeter/internal/owned"
	"github.com/podmeter/podmeter/internal/redirect"
	"github.com/podmeter/podmeter/internal/secret"
)

// attribution is what the licence asks to be told with the data, in attributionFile
// beside it.
const (
	attributionFile = "dbip-lite.txt"
	attribution     = `IP Geolocation by DB-IP (https://db-ip.com)

The dbip-*-lite databases of this folder are DB-IP Lite, under the Creative Commons Attribution 4.0
International License (https://creativecommons.org/licenses/by/4.0/). Pages that show what is
in them have to name DB-IP with a link.
`
)

// fetcher fetches databases. Its fields are what it needs of the world.
type fetcher struct {
	config   Config
	log      *slog.Logger
	client   *http.Client
	registry string
	now      func() time.Time
	maxSize  int64 // maxSize, or a test's
}

// Run fetches the databases of a configuration that is valid. One that cannot be had is
// an error, unless an older file of it is there, which is kept, or the configuration gives
// up.
func Run(ctx context.Context, config Config, log *slog.Logger) error {
	return newFetcher(config, log).runWithin(ctx)
}

func newFetcher(config Config, log *slog.Logger) *fetcher {
	return &fetcher{
		config: config, log: log, client: &http.Client{
			CheckRedirect: redirect.Download, Transport: secret.Transport(http.DefaultTransport),
		},
		registry: registry, now: time.Now, maxSize: maxSize,
	}
}

// runWithin is run within the time after which it is given up, if there is one.
func (f *fetcher) runWithin(ctx context.Context) error {
	if f.config.GiveUp == 0 {
		return f.run(ctx)
	}
	within, cancel := context.WithTimeout(ctx, f.config.GiveUp)
	defer cancel()
	err := f.run(within)
	if err != nil && ctx.Err() == nil {
		f.log.Warn("given up: there will be no places until a database is there", "dir", f.config.Dir, "error", err)
		return nil
	}
	return err
}

func (f *fetcher) run(ctx context.Context) error {
	if err := os.MkdirAll(f.config.Dir, 0o755); err != nil {
		return fmt.Errorf("make --dir: %w", err)
	}
	var errs []error
	for _, d := range databases() {
		if slices.Contains(f.config.Databases, d.name) {
			errs = append(errs, f.provide(ctx, d))
		}
	}
	return errors.Join(errs...)
}

// provide leaves a usable file of a database, or fails.
func (f *fetcher) provide(ctx context.Context, d database) error {
	path := filepath.Join(f.config.Dir, d.file())
	_, unusable := look(path)
	if info, err := os.Stat(path); err == nil && unusable == nil && f.now().Sub(info.ModTime()) < f.config.MaxAge {
		f.log.Info("database is recent and stays", "path", path, "fetched", info.ModTime().UTC().Format(time.DateTime))
		return nil
	}
	err := f.fetch(ctx, d, path)
	if err != nil && unusable == nil {
		f.log.Warn("database cannot be fetched, the one that is there stays", "path", path, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("fetch database %s (give a --mirror, or another database to --geoip): %w", d.name, err)
	}
	return nil
}

// fetch asks one source after the other.
func (f *fetcher) fetch(ctx context.Context, d database, path string) error {
	var errs []error
	for _, s := range f.sources(d) {
		f.log.Info("fetching database", "name", d.name, "url", secret.Address(s.url))
		info, err := f.install(ctx, s, path)
		if err == nil {
			f.log.Info("database is there", "path", path, "size", info.Size, "built", info.Built.Format(time.DateOnly),
				"attribution", "IP Geolocation by DB-IP, https://db-ip.com, CC BY 4.0")
			return nil
		}
		f.log.Info("database is not there", "url", secret.Address(s.url), "error", err)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// install puts what a source has in the place of path, if it is a database, with what its
// licence asks to be told beside it.
func (f *fetcher) install(ctx context.Context, s source, path string) (info geo.Info, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.config.Timeout)
	defer cancel()
	directory, err := owned.Open(filepath.Dir(path), 0o755)
	if err != nil {
		return geo.Info{}, fmt.Errorf("open --dir: %w", err)
	}
	defer directory.Close() // files in it are closed
	// Always of one name, so that one that was killed leaves no more than this.
	name := filepath.Base(path)
	part := name + ".part"
	file, err := directory.Create(part, 0o644)
	if err != nil {
		return geo.Info{}, err
	}
	defer directory.Remove(part) // unless it is in its place
	if err := errors.Join(s.read(ctx, file, s.url), file.Close()); err != nil {
		return geo.Info{}, err
	}
	if info, err = look(path + ".part"); err != nil {
		return geo.Info{}, err
	}
	err = directory.Write(attributionFile, attributionFile+".part", []byte(attribution), 0o644)
	return info, errors.Join(err, directory.Rename(part, name))
}

// look says what is in a file, or why it is no database.
func look(path string) (info geo.Info, err error) {
	d, err := geo.Open(geo.Options{Paths: []string{path}})
	if err != nil {
		return geo.Info{}, err
	}
	return d.Info()[0], d.Close()
}
