// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Reload reads all files again. A file that is missing, broken or of no use
// now keeps the database that was read before from its path; the error names
// each such file. After Close it returns [ErrClosed].
func (d *Databases) Reload() error {
	d.loading.Lock()
	defer d.loading.Unlock()
	if d.isClosed() {
		return fmt.Errorf("reload databases: %w", ErrClosed)
	}
	var errs []error
	for _, s := range d.sources {
		if !s.embedded {
			errs = append(errs, d.load(s))
		}
	}
	return errors.Join(errs...)
}

// Watch looks at the files at every interval until the context is done, and
// reads again those that changed and have kept still for one interval, so that
// a file is not read while it is being written. What is wrong with a file is
// logged once per change. It returns nil.
func (d *Databases) Watch(ctx context.Context) error {
	ticker := time.NewTicker(d.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			d.poll()
		}
	}
}

// poll looks at the files once.
func (d *Databases) poll() {
	d.loading.Lock()
	defer d.loading.Unlock()
	if d.isClosed() {
		return
	}
	for _, s := range d.sources {
		if s.embedded || !s.changed() {
			continue
		}
		if err := d.load(s); err != nil {
			d.log.Error("geoip database not reloaded, keeping the old one if there is any", "path", s.name, "error", err)
		}
	}
}

// changed says whether the file is another than was last tried and the same as
// at the last look.
func (s *source) changed() bool {
	now := stampAt(s.name)
	still := now == s.seen
	s.seen = now
	return still && now != s.tried
}

func (d *Databases) isClosed() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.closed
}

// load reads the file of a source and puts the database in use. The caller
// holds loading, or is alone.
func (d *Databases) load(s *source) error {
	// Before reading, so that a later change is seen as one.
	s.tried = stampAt(s.name)
	s.seen = s.tried
	db, err := readDatabase(s.name, d.room())
	if err != nil {
		err = fmt.Errorf("open database %s: %w", s.name, err)
		d.mu.Lock()
		s.problem = err.Error()
		d.mu.Unlock()
		return err
	}
	d.log.Info("geoip database loaded", "path", s.name, "type", db.metadata.DatabaseType,
		"built", db.metadata.BuildTime().UTC(), "fields", db.fields.names())
	return d.use(s, db)
}

// use replaces the database of a source and closes the old one, which nobody
// reads any more.
func (d *Databases) use(s *source, db *database) error {
	d.mu.Lock()
	old := s.db
	s.db, s.problem = db, ""
	d.cache.clear()
	d.mu.Unlock()
	if old == nil {
		return nil
	}
	if err := old.close(); err != nil {
		return fmt.Errorf("close old database %s: %w", s.name, err)
	}
	return nil
}
