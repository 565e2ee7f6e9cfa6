// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"
	"unique"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
	"github.com/podmeter/podmeter/internal/memory"
)

// Errors that tell why a file cannot be used.
var (
	// ErrNotMMDB is returned for what is empty, truncated, corrupt or of
	// another format.
	ErrNotMMDB = errors.New("not a usable MaxMind DB")
	// ErrNoRoom is returned for a database larger than the memory that is left.
	ErrNoRoom = errors.New("no room for it")
	// ErrNoFields is returned for a database none of whose records holds a
	// field that a [flows.Place] has.
	ErrNoFields = errors.New("no known field in its records")
	// ErrClosed is returned by Reload after Close.
	ErrClosed = errors.New("databases are closed")
)

// defaultInterval is how often [Databases.Watch] looks at the files.
const defaultInterval = 5 * time.Second

// Options of [Open].
type Options struct {
	// Paths are the database files. An earlier one wins: a later one fills
	// only what the earlier ones left empty.
	Paths []string
	// Embedded are databases that the program carries; they come after Paths.
	Embedded []Embedded
	// PostalCodes is whether places have them. There are many to a city, each of
	// which would be a place of its own to remember.
	PostalCodes bool
	// Optional lets Open succeed where a file is missing or broken: its places are unknown
	// until [Databases.Watch] or Reload finds a database there.
	Optional bool
	// Interval is the time between two looks of [Databases.Watch] at the
	// files; 5 s when zero.
	Interval time.Duration
	// Logger gets what was loaded and what is wrong; nil for none.
	Logger *slog.Logger

	// room returns how many bytes may still be taken; tests have one of their own.
	room func() int64
}

// Embedded is a database in memory.
type Embedded struct {
	// Name stands for the path in errors and in [Info].
	Name string
	// Data is the whole file. It must not be changed.
	Data []byte
}

// Databases is an ordered set of databases. It implements [flows.Places].
type Databases struct {
	log         *slog.Logger
	room        func() int64
	postalCodes bool
	optional    bool
	interval    time.Duration
	cache       *cache

	// loading is held by whoever replaces databases, one at a time.
	loading sync.Mutex

	// mu is held for reading as long as a lookup touches the memory of a
	// database, and for writing to put another in its place; after that nobody
	// can still be reading the old one, and it is closed. It guards all below.
	mu      sync.RWMutex
	sources []*source
	closed  bool
}

// source is where a database comes from, and the one in use.
type source struct {
	name     string
	embedded bool
	db       *database
	problem  string // why the file now at the path is not the one in use

	// Guarded by Databases.loading.
	seen  stamp // at the last look
	tried stamp // when last read, whether well or not
}

// Open reads and checks the databases. Its error names each file that is
// missing, broken ([ErrNotMMDB]) or of no use ([ErrNoFields]), and says why.
func Open(o Options) (*Databases, error) {
	d := &Databases{log: o.Logger, room: o.room, postalCodes: o.PostalCodes, optional: o.Optional, interval: o.Interval, cache: newCache(cacheSize)}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.room == nil {
		d.room = memory.Room
	}
	if d.interval <= 0 {
		d.interval = defaultInterval
	}
	for _, path := range o.Paths {
		d.sources = append(d.sources, &source{name: path})
	}
	for _, e := range o.Embedded {
		d.sources = append(d.sources, &source{name: e.Name, embedded: true})
	}
	if err := d.openAll(o.Embedded); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Databases) openAll(embedded []Embedded) error {
	var errs []error
	for _, s := range d.sources {
		if s.embedded {
			continue
		}
		if err := d.load(s); err != nil && d.optional {
			d.log.Warn("geoip database cannot be used, its places stay unknown until it can", "path", s.name, "error", err)
		} else {
			errs = append(errs, err)
		}
	}
	own := d.sources[len(d.sources)-len(embedded):]
	for i, e := range embedded {
		db, err := newDatabase(e.Data)
		if err != nil {
			errs = append(errs, fmt.Errorf("open database %s: %w", e.Name, err))
			continue
		}
		own[i].db = db
	}
	return errors.Join(errs...)
}

// nowhere is the place of addresses that are in none.
var nowhere = unique.Make(flows.Place{})

// Place returns where the address is, with the centroid of its country where no
// database has coordinates; the zero Place when no database knows the address,
// and for addresses that are in no particular place, whatever a database claims:
// all but those of [flows.PeerExternal] by [flows.KindOf].
func (d *Databases) Place(address netip.Addr) flows.Place { return d.Handle(address).Value() }

// Handle is Place for who compares places. It implements [flows.Places].
func (d *Databases) Handle(address netip.Addr) unique.Handle[flows.Place] {
	address = address.Unmap().WithZone("")
	if flows.KindOf(address) != flows.PeerExternal {
		return nowhere
	}
	if p, ok := d.cache.get(address); ok {
		return p
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	p := d.locate(address)
	// Still under the lock, so that no place of an old database enters a cache
	// that a reload has emptied.
	return d.cache.put(address, p)
}

// locate asks the databases in order. The caller holds mu.
func (d *Databases) locate(address netip.Addr) flows.Place {
	var p flows.Place
	for _, s := range d.sources {
		if s.db == nil {
			continue
		}
		q, err := s.db.lookup(address)
		if err != nil {
			// Once: a corrupt file has many such addresses.
			s.db.complain.Do(func() {
				d.log.Error("geoip record is unreadable, its places stay unknown",
					"path", s.name, "address", address, "error", err)
			})
			continue
		}
		fill(&p, q)
	}
	if !d.postalCodes {
		p.PostalCode = ""
	}
	if p.Latitude == "" {
		p.Latitude, p.Longitude = Centroid(p.Country)
	}
	return p
}

// fill sets what is empty in p from q. Values that belong together are not
// mixed: a city of another country, a postal code of another city and the name
// of another autonomous system are left out, and coordinates come as a pair.
func fill(p *flows.Place, q flows.Place) {
	if agree(p.Country, q.Country) {
		set(&p.Country, q.Country)
		// A postal code says which city, and so a city says whose postal code.
		if agree(p.City, q.City) {
			set(&p.City, q.City)
			set(&p.PostalCode, q.PostalCode)
		}
		if p.Latitude == "" {
			p.Latitude, p.Longitude = q.Latitude, q.Longitude
		}
	}
	if agree(p.ASN, q.ASN) {
		set(&p.ASN, q.ASN)
		set(&p.Organization, q.Organization)
	}
}

// agree says whether two values do not contradict each other.
func agree(a, b string) bool { return a == "" || b == "" || a == b }

func set(to *string, value string) {
	if *to == "" {
		*to = value
	}
}

// Info describes a database in use, or that is waited for.
type Info struct {
	// Path of its file, or the name of an embedded one.
	Path string
	// Type as its maker named it, such as GeoLite2-City.
	Type string
	// Built is when its maker built it.
	Built time.Time
	// Size is the memory it takes, in bytes.
	Size int
	// Fields are those of [flows.Place] that it gives, in lower case.
	Fields []string
	// Problem is why the file now at Path is not used and an older copy of it
	// is, or none; empty when all is well.
	Problem string
	// Missing is whether none is in use; only Path and Problem are set then.
	Missing bool
}

// Info describes the databases, in order; it is empty after Close.
func (d *Databases) Info() []Info {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var infos []Info
	for _, s := range d.sources {
		if s.db == nil {
			if !d.closed {
				infos = append(infos, Info{Path: s.name, Problem: s.problem, Missing: true})
			}
			continue
		}
		infos = append(infos, Info{
			Path:    s.name,
			Type:    plain.Text(s.db.metadata.DatabaseType, plain.PlaceLimit),
			Built:   s.db.metadata.BuildTime().UTC(),
			Size:    s.db.size,
			Fields:  s.db.fields.names(),
			Problem: s.problem,
		})
	}
	return infos
}

// Close frees the databases once no lookup uses them. It may be called again.
func (d *Databases) Close() error {
	d.loading.Lock()
	defer d.loading.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	var errs []error
	for _, s := range d.sources {
		if s.db != nil {
			errs = append(errs, s.db.close())
			s.db = nil
		}
	}
	d.cache.clear()
	return errors.Join(errs...)
}
