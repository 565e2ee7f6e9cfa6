// SPDX-License-Identifier: Apache-2.0

// Command geoip writes the MaxMind databases of the demo and of the tests. The
// same source gives the same bytes.
//
// Usage: go run ./hack/geoip -out flows/geo
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

func main() { os.Exit(run()) }

func run() int {
	out := flag.String("out", "flows/geo", "folder of package geo, which holds demodb and testdata")
	flag.Parse()
	if err := write(*out); err != nil {
		fmt.Fprintln(os.Stderr, "geoip:", err)
		return 1
	}
	return 0
}

// database is one file to write.
type database struct {
	path   string // below the folder of package geo
	kind   string // the metadata's database_type
	record func(place) mmdbtype.Map
}

func databases() []database {
	return []database{
		{"demodb/demo-city.mmdb", "Podmeter-Demo-City", cityRecord},
		{"demodb/demo-asn.mmdb", "Podmeter-Demo-ASN", asnRecord},
		{"testdata/demo-country.mmdb", "Podmeter-Demo-Country", countryRecord},
	}
}

func write(folder string) error {
	var errs []error
	for _, db := range databases() {
		data, err := build(db)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, db.path), data, 0o644)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("write database %s: %w", db.path, err))
		}
	}
	return errors.Join(errs...)
}

// build returns the bytes of a database.
func build(db database) ([]byte, error) {
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		// Fixed, or else each run would write another file.
		BuildEpoch:   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix(),
		DatabaseType: db.kind,
		Description:  map[string]string{"en": "podmeter demo: documentation ranges with invented owners"},
		Languages:    []string{"en"},
		// Documentation ranges are reserved.
		IncludeReservedNetworks: true,
		RecordSize:              24,
	})
	if err != nil {
		return nil, err
	}
	for _, p := range places() {
		_, network, err := net.ParseCIDR(p.network)
		if err != nil {
			return nil, err
		}
		if err := tree.Insert(network, db.record(p)); err != nil {
			return nil, fmt.Errorf("insert %s: %w", p.network, err)
		}
	}
	var b bytes.Buffer
	_, err = tree.WriteTo(&b)
	return b.Bytes(), err
}
