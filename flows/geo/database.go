// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/oschwald/maxminddb-golang/v2"
	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
)

// metadataMarker starts the metadata, which is within the last metadataMax
// bytes; pointers have 32 bits, which bounds a file's size
// (https://maxmind.github.io/MaxMind-DB/).
const (
	metadataMarker = "\xab\xcd\xefMaxMind.com"
	metadataMax    = 128 << 10
	sizeMax        = 4 << 30
)

// database is one opened database.
type database struct {
	reader   *maxminddb.Reader
	metadata maxminddb.Metadata
	mapping  []byte // to be unmapped by close; nil for memory of the program
	size     int
	fields   fieldSet
	complain sync.Once // about its first unreadable record
}

// newDatabase checks the content of a file and finds out what it gives.
func newDatabase(data []byte) (*database, error) {
	if err := checkEnds(data); err != nil {
		return nil, err
	}
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, corrupt(err)
	}
	if err := checkMetadata(reader.Metadata); err != nil {
		return nil, err
	}
	db := &database{reader: reader, metadata: reader.Metadata, size: len(data)}
	if err := db.sample(); err != nil {
		return nil, err
	}
	if err := db.check(data); err != nil {
		return nil, err
	}
	return db, nil
}

// corrupt says in our words what the reader's error means.
func corrupt(err error) error {
	return fmt.Errorf("%w: truncated or corrupt: %w", ErrNotMMDB, err)
}

// checkEnds looks at the first and last bytes of a file for its usual faults.
func checkEnds(data []byte) error {
	tail := data[max(0, len(data)-metadataMax):]
	switch {
	case len(data) == 0:
		return fmt.Errorf("%w: file is empty", ErrNotMMDB)
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		return fmt.Errorf("%w: file is gzip-compressed, unpack it first", ErrNotMMDB)
	case !bytes.Contains(tail, []byte(metadataMarker)):
		return fmt.Errorf("%w: no metadata at the end of the file: it is truncated or of another format", ErrNotMMDB)
	}
	return nil
}

// checkMetadata refuses what the reader would take and then misread.
func checkMetadata(m maxminddb.Metadata) error {
	switch {
	case m.BinaryFormatMajorVersion != 2:
		return fmt.Errorf("%w: format version %d, want 2", ErrNotMMDB, m.BinaryFormatMajorVersion)
	case m.IPVersion != 4 && m.IPVersion != 6:
		return fmt.Errorf("%w: IP version %d, want 4 or 6", ErrNotMMDB, m.IPVersion)
	case m.RecordSize != 24 && m.RecordSize != 28 && m.RecordSize != 32:
		return fmt.Errorf("%w: record size %d, want 24, 28 or 32", ErrNotMMDB, m.RecordSize)
	case m.NodeCount == 0:
		return fmt.Errorf("%w: search tree is empty", ErrNotMMDB)
	}
	return nil
}

// lookup returns what the database says of an address, unmapped.
func (db *database) lookup(a netip.Addr) (flows.Place, error) {
	if db.metadata.IPVersion == 4 && !a.Is4() {
		return flows.Place{}, nil
	}
	var r record
	if err := db.reader.Lookup(a).Decode(&r); err != nil {
		return flows.Place{}, err
	}
	return r.place(), nil
}

// How many networks are looked at, those without data included: from the start
// of the tree, and within each part of it.
const (
	sampleStart = 4096
	samplePart  = 64
)

// sample finds the fields that the records hold. Beginnings are often sparse,
// so it looks into all parts of the address space as well.
func (db *database) sample() error {
	w := sampler{db: db, seen: make(map[uintptr]bool)}
	if err := w.walk(db.reader.Networks(everything()...), sampleStart); err != nil {
		return err
	}
	for _, part := range db.parts() {
		if err := w.walk(db.reader.NetworksWithin(part, everything()...), samplePart); err != nil {
			return err
		}
	}
	if len(w.seen) == 0 {
		return fmt.Errorf("%w: no network has data", ErrNoFields)
	}
	if w.fields == 0 {
		return fmt.Errorf("%w, which hold %s", ErrNoFields, w.keys())
	}
	db.fields = w.fields
	return nil
}

// everything makes a walk stop at each network. Otherwise it passes over empty
// ones and aliases by itself, out of reach of our bound.
func everything() []maxminddb.NetworksOption {
	return []maxminddb.NetworksOption{maxminddb.IncludeNetworksWithoutData(), maxminddb.IncludeAliasedNetworks()}
}

// parts returns the unicast /8s and the /12s from which the regional registries
// assign.
func (db *database) parts() []netip.Prefix {
	var parts []netip.Prefix
	for b := byte(1); b < 224; b++ {
		parts = append(parts, netip.PrefixFrom(netip.AddrFrom4([4]byte{b}), 8))
	}
	if db.metadata.IPVersion == 6 {
		for _, b := range []byte{0x24, 0x26, 0x28, 0x2a, 0x2c} {
			parts = append(parts, netip.PrefixFrom(netip.AddrFrom16([16]byte{b}), 12))
		}
	}
	return parts
}

// sampler gathers the fields of the records it walks over.
type sampler struct {
	db     *database
	seen   map[uintptr]bool // offsets of records
	first  maxminddb.Result
	fields fieldSet
}

func (w *sampler) walk(networks func(func(maxminddb.Result) bool), limit int) error {
	var err error
	networks(func(result maxminddb.Result) bool {
		limit--
		err = w.look(result)
		return err == nil && limit > 0
	})
	return err
}

func (w *sampler) look(result maxminddb.Result) error {
	if err := result.Err(); err != nil {
		return corrupt(err)
	}
	if !result.Found() || w.seen[result.Offset()] {
		return nil
	}
	if len(w.seen) == 0 {
		w.first = result
	}
	w.seen[result.Offset()] = true
	var r record
	if err := result.Decode(&r); err != nil {
		return corrupt(fmt.Errorf("record of %s: %w", result.Prefix(), err))
	}
	w.fields |= r.fields()
	return nil
}

// keys lists the first keys of the first record, for an error.
func (w *sampler) keys() string {
	const most = 8
	var r map[string]any
	if err := w.first.Decode(&r); err != nil || len(r) == 0 {
		return "no map"
	}
	var keys []string
	for key := range r {
		keys = append(keys, plain.Text(key, plain.LabelLimit))
	}
	slices.Sort(keys)
	if len(keys) > most {
		keys = append(keys[:most], "…")
	}
	return strings.Join(keys, ", ")
}

// close gives the memory back. Nobody may be reading it.
func (db *database) close() error {
	err := db.reader.Close()
	if db.mapping != nil {
		err = errors.Join(err, unix.Munmap(db.mapping))
		db.mapping = nil
	}
	return err
}
