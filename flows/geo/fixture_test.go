// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/geo/demodb"
)

// Short names, as records nest.
type (
	m = mmdbtype.Map
	s = mmdbtype.String
)

// networks are the records of a database, by prefix.
type networks map[string]mmdbtype.DataType

// build returns a database in memory.
func build(t testing.TB, o mmdbwriter.Options, records networks) []byte {
	t.Helper()
	o.IncludeReservedNetworks = true
	o.BuildEpoch = 1
	tree, err := mmdbwriter.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for prefix, record := range records {
		_, network, err := net.ParseCIDR(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(network, record); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := tree.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// one returns a database with a record for 198.51.100.0/24.
func one(t testing.TB, record mmdbtype.DataType) []byte {
	t.Helper()
	return build(t, mmdbwriter.Options{}, networks{"198.51.100.0/24": record})
}

// inCountry returns a database that has 198.51.100.0/24 in a country.
func inCountry(t testing.TB, code string) []byte {
	t.Helper()
	return one(t, m{"country": m{"iso_code": s(code)}})
}

// writeFile writes a file in a fresh folder and returns its path.
func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	overwrite(t, path, data)
	return path
}

// sparseFile makes a file of a size that takes no space, and returns its path.
func sparseFile(t testing.TB, size int64) string {
	t.Helper()
	path := writeFile(t, "sparse.mmdb", nil)
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// overwrite writes a file in place, as cp does.
func overwrite(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts a new file in a path's place, as geoipupdate does.
func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	overwrite(t, path+".new", data)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func demoCountry(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/demo-country.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// fixtures returns each kind of database that the tests use.
func fixtures(t testing.TB) [][]byte {
	t.Helper()
	return [][]byte{
		demodb.City(), demodb.ASN(), demoCountry(t),
		one(t, m{"country": s("DE"), "asn": s("AS64496"), "as_name": s("Example"), "lat": s("1.5"), "lng": s("2")}),
		one(t, m{"city": m{"names": m{"en": s("Z\xfcrich")}}}),
		one(t, m{"connection_type": s("Cellular")}),
		one(t, s("not a map")),
		build(t, mmdbwriter.Options{IPVersion: 4, RecordSize: 32}, networks{"198.51.100.0/24": m{"country": s("DE")}}),
	}
}

// open opens databases and closes them at the end of the test.
func open(t testing.TB, o Options) *Databases {
	t.Helper()
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// atCentroid returns the place with the coordinates of its country.
func atCentroid(p flows.Place) flows.Place {
	p.Latitude, p.Longitude = Centroid(p.Country)
	return p
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }
