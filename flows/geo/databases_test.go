// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/geo/demodb"
)

var _ flows.Places = (*Databases)(nil)

var zurich = flows.Place{
	Country: "CH", City: "Zürich", Latitude: "47.3769", Longitude: "8.5417",
	ASN: "64496", Organization: "Example Transit",
}

func TestPlaceOfEachDatabaseAloneAndTogether(t *testing.T) {
	city := flows.Place{Country: "CH", City: "Zürich", Latitude: "47.3769", Longitude: "8.5417"}
	asn := flows.Place{ASN: "64496", Organization: "Example Transit"}
	cityPath := "demodb/demo-city.mmdb"
	asnPath := "demodb/demo-asn.mmdb"
	countryPath := "testdata/demo-country.mmdb"
	tests := []struct {
		name  string
		paths []string
		want  flows.Place
	}{
		{"none", nil, flows.Place{}},
		{"city", []string{cityPath}, city},
		{"asn", []string{asnPath}, asn},
		{"country", []string{countryPath}, atCentroid(flows.Place{Country: "CH"})},
		{"city, asn", []string{cityPath, asnPath}, zurich},
		{"asn, country, city", []string{asnPath, countryPath, cityPath}, zurich},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, Options{Paths: tt.paths})
			if diff := cmp.Diff(tt.want, d.Place(addr("198.51.100.7"))); diff != "" {
				t.Errorf("place (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPostalCodesAreOptIn(t *testing.T) {
	for wanted, want := range map[bool]string{false: "", true: "8001"} {
		d := open(t, Options{Paths: []string{"demodb/demo-city.mmdb"}, PostalCodes: wanted})
		if got := d.Place(addr("198.51.100.7")).PostalCode; got != want {
			t.Errorf("asked for: %v: got %q, want %q", wanted, got, want)
		}
	}
}

func TestPlaceOfDemo(t *testing.T) {
	d := open(t, Options{Embedded: []Embedded{
		{Name: "demo-city", Data: demodb.City()}, {Name: "demo-asn", Data: demodb.ASN()},
	}})
	tests := []struct{ address, city, asn string }{
		{"198.51.100.127", "Zürich", "64496"},
		{"198.51.100.128", "Tokyo", "64497"},
		{"203.0.113.1", "São Paulo", "64498"},
		{"203.0.113.255", "Nairobi", "64499"},
		{"192.0.2.1", "Montréal", "64500"},
		{"192.0.2.129", "", ""},
		{"2001:db8:1::1", "Reykjavík", "64501"},
		{"2001:db8:2:ffff::1", "Wellington", "64502"},
		{"2001:db8:3::1", "", ""},
		{"::ffff:198.51.100.1", "Zürich", "64496"},
		{"2001:db8:1::1%eth0", "Reykjavík", "64501"},
	}
	for _, tt := range tests {
		if p := d.Place(addr(tt.address)); p.City != tt.city || p.ASN != tt.asn {
			t.Errorf("%s: got %q, AS %q, want %q, AS %q", tt.address, p.City, p.ASN, tt.city, tt.asn)
		}
	}
}

// everywhere claims to know all addresses.
func everywhere(t *testing.T) []byte {
	t.Helper()
	de := m{"country": m{"iso_code": s("DE")}}
	return build(t, mmdbwriter.Options{DisableIPv4Aliasing: true}, networks{"::/1": de, "8000::/1": de})
}

func TestPlaceOfNowhere(t *testing.T) {
	d := open(t, Options{Embedded: []Embedded{{Name: "everywhere", Data: everywhere(t)}}})
	for _, a := range []string{
		"127.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.0.1",
		"224.0.0.1", "239.1.1.1", "100.64.0.1", "100.127.255.255", "::", "::1", "fe80::1", "fe80::1%eth0",
		"ff02::1", "fc00::1", "fd12::1", "::ffff:10.0.0.1", "::ffff:100.64.0.1", "64:ff9b::10.0.0.1", "198.18.0.1", "240.0.0.1",
	} {
		if got := d.Place(addr(a)); got != (flows.Place{}) {
			t.Errorf("%s: got %v, want nothing", a, got)
		}
	}
	if got := d.Place(netip.Addr{}); got != (flows.Place{}) {
		t.Errorf("no address: got %v, want nothing", got)
	}
	for _, a := range []string{
		"172.15.0.1", "172.32.0.1", "100.63.255.255", "100.128.0.0", "198.51.100.1", "223.0.0.1", "2001:db8::1", "64:ff9b::198.51.100.1",
	} {
		if got := d.Place(addr(a)).Country; got != "DE" {
			t.Errorf("%s: got %q, want DE", a, got)
		}
	}
}

func TestPlacePrecedence(t *testing.T) {
	at := func(lat, lon float64) m {
		return m{"latitude": mmdbtype.Float64(lat), "longitude": mmdbtype.Float64(lon)}
	}
	tests := []struct {
		name          string
		first, second m
		want          flows.Place
	}{
		{
			"earlier wins", m{"country": s("DE"), "asn": s("AS1")}, m{"country": s("FR"), "asn": s("AS2")},
			atCentroid(flows.Place{Country: "DE", ASN: "1"}),
		},
		{
			"later fills", m{"country": s("DE")}, m{"country": s("DE"), "city": s("Bonn"), "asn": s("2")},
			atCentroid(flows.Place{Country: "DE", City: "Bonn", ASN: "2"}),
		},
		{
			"no city of another country",
			m{"country": s("DE")}, m{"country": s("FR"), "city": s("Paris"), "location": at(1, 2)},
			atCentroid(flows.Place{Country: "DE"}),
		},
		{
			"no postal code of another city",
			m{"city": s("Bonn"), "lat": s("1"), "lng": s("2")}, m{"city": s("Köln"), "postal_code": s("50667")},
			flows.Place{City: "Bonn", Latitude: "1", Longitude: "2"},
		},
		{
			"postal code of the same city",
			m{"city": s("Bonn"), "lat": s("1"), "lng": s("2")}, m{"city": s("Bonn"), "postal_code": s("53111")},
			flows.Place{City: "Bonn", PostalCode: "53111", Latitude: "1", Longitude: "2"},
		},
		{
			"no name of another system", m{"asn": s("AS1")}, m{"asn": s("AS2"), "as_name": s("Two")},
			flows.Place{ASN: "1"},
		},
		{
			"name of the same system",
			m{"asn": s("AS1")}, m{"autonomous_system_number": mmdbtype.Uint32(1), "as_name": s("One")},
			flows.Place{ASN: "1", Organization: "One"},
		},
		{
			"coordinates are a pair", m{"country": s("DE"), "lat": s("1")}, m{"location": at(3, 4)},
			flows.Place{Country: "DE", Latitude: "3", Longitude: "4"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, Options{PostalCodes: true, Paths: []string{
				writeFile(t, "1.mmdb", one(t, tt.first)), writeFile(t, "2.mmdb", one(t, tt.second)),
			}})
			if diff := cmp.Diff(tt.want, d.Place(addr("198.51.100.7"))); diff != "" {
				t.Errorf("place (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlaceOfIPv6InIPv4Database(t *testing.T) {
	data := build(t, mmdbwriter.Options{IPVersion: 4}, networks{"198.51.100.0/24": m{"country": s("DE")}})
	d := open(t, Options{Embedded: []Embedded{{Name: "v4", Data: data}}})
	if got := d.Place(addr("2001:db8::1")); got != (flows.Place{}) {
		t.Errorf("got %v, want nothing", got)
	}
	if got := d.Place(addr("::ffff:198.51.100.1")).Country; got != "DE" {
		t.Errorf("mapped: got %q, want DE", got)
	}
}

func TestOpenErrors(t *testing.T) {
	city := demodb.City()
	tests := []struct {
		name string
		path string
		is   error
		text string
	}{
		{"missing", t.TempDir() + "/none.mmdb", fs.ErrNotExist, "no such file"},
		{"directory", t.TempDir(), ErrNotMMDB, "is a directory"},
		{"empty", writeFile(t, "empty.mmdb", nil), ErrNotMMDB, "file is empty"},
		{"too large", sparseFile(t, sizeMax+1), ErrNotMMDB, "at most 4.0 GiB"},
		{"text", writeFile(t, "text.mmdb", []byte("<html>404</html>")), ErrNotMMDB, "of another format"},
		{"gzip", writeFile(t, "a.mmdb.gz", []byte("\x1f\x8b\x08")), ErrNotMMDB, "gzip"},
		{"end cut off", writeFile(t, "cut.mmdb", city[:len(city)/2]), ErrNotMMDB, "truncated"},
		{"metadata cut", writeFile(t, "meta.mmdb", city[:len(city)-40]), ErrNotMMDB, "truncated or corrupt"},
		{"start cut off", writeFile(t, "start.mmdb", city[len(city)/2:]), ErrNotMMDB, "truncated or corrupt"},
		{"hole", writeFile(t, "hole.mmdb", withHole(city)), ErrNotMMDB, "truncated or corrupt"},
		{"unknown fields", writeFile(t, "ct.mmdb", one(t, m{"connection_type": s("Cable"), "a": s("b")})),
			ErrNoFields, "which hold a, connection_type"},
		{"registered country", writeFile(t, "rc.mmdb", one(t, m{"registered_country": m{"iso_code": s("US")}})),
			ErrNoFields, "registered_country"},
		{"no maps", writeFile(t, "nomap.mmdb", one(t, s("x"))), ErrNoFields, "hold no map"},
		{"no networks", writeFile(t, "none.mmdb", build(t, mmdbwriter.Options{}, nil)), ErrNoFields, "no network"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Open(Options{Paths: []string{"demodb/demo-asn.mmdb", tt.path}})
			if err == nil {
				t.Fatal("got no error", d.Close())
			}
			if !errors.Is(err, tt.is) {
				t.Errorf("got %v, want one that is %v", err, tt.is)
			}
			for _, text := range []string{tt.path, tt.text} {
				if strings.Count(err.Error(), text) != 1 {
					t.Errorf("got %q, want %q in it once", err, text)
				}
			}
			if strings.Contains(err.Error(), "demo-asn") {
				t.Errorf("got %q, which names a good file", err)
			}
		})
	}
}

// withHole overwrites the search tree's first quarter with zeros, as in a file
// of which a part was never downloaded.
func withHole(data []byte) []byte {
	data = append([]byte(nil), data...)
	clear(data[:len(data)/4])
	return data
}

func TestOpenRefusesPipe(t *testing.T) {
	path := t.TempDir() + "/pipe"
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip("no named pipes here:", err)
	}
	// Opening it would wait forever.
	if _, err := Open(Options{Paths: []string{path}}); !errors.Is(err, ErrNotMMDB) {
		t.Errorf("got %v, want %v", err, ErrNotMMDB)
	}
}

// A database for which there is no memory is refused, also in the place of one that is in
// use, which stays.
func TestNoRoom(t *testing.T) {
	path, left := writeFile(t, "a.mmdb", demodb.City()), int64(len(demodb.City())+roomReserve)+checkMemory(int64(len(demodb.City())))
	d := open(t, Options{Paths: []string{path}, room: func() int64 { return left }})
	left--
	if err := d.Reload(); !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), path) {
		t.Errorf("reload: got %v, want %v", err, ErrNoRoom)
	}
	if info := d.Info(); info[0].Problem == "" || d.Place(addr("198.51.100.7")) == (flows.Place{}) {
		t.Errorf("got %+v, want a problem, and the one that was there", info)
	}
	_, err := Open(Options{Paths: []string{sparseFile(t, sizeMax)}, room: func() int64 { return 600 << 20 }})
	if !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), "takes 5.5 GiB") || !strings.Contains(err.Error(), "leaves 600 MiB") {
		t.Errorf("got %v, want %v", err, ErrNoRoom)
	}
}

func TestOpenNamesEveryBadFile(t *testing.T) {
	_, err := Open(Options{
		Paths:    []string{"/none/1.mmdb", "/none/2.mmdb"},
		Embedded: []Embedded{{Name: "third"}},
	})
	for _, name := range []string{"/none/1.mmdb", "/none/2.mmdb", "third"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s in it", err, name)
		}
	}
}

func TestFieldsOfSparseBeginning(t *testing.T) {
	// More networks without a city than the walk from the start looks at.
	records := networks{"203.0.113.0/24": m{"city": s("Nairobi"), "country": s("KE")}}
	for i := range sampleStart {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{1, byte(i >> 8), byte(i)}), 24)
		records[prefix.String()] = m{"country": s([]string{"DE", "FR"}[i%2])}
	}
	db, err := newDatabase(build(t, mmdbwriter.Options{}, records))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"country", "city"}, db.fields.names()); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

// Who can do without a database begins so, says that it is missing, and takes it when it
// comes.
func TestOptional(t *testing.T) {
	path := filepath.Join(t.TempDir(), "late.mmdb")
	d := open(t, Options{Paths: []string{path}, Embedded: []Embedded{{Name: "asn", Data: demodb.ASN()}}, Optional: true})
	if got := d.Info(); len(got) != 2 || !got[0].Missing || got[0].Path != path || got[0].Problem == "" || got[1].Missing {
		t.Errorf("got %+v, want the file missing, and why", got)
	}
	if got := d.Place(addr("198.51.100.7")); got.Country != "" || got.ASN == "" {
		t.Errorf("got %+v, want the place that the other one knows alone", got)
	}
	if err := os.WriteFile(path, demodb.City(), 0o600); err != nil {
		t.Fatal(err)
	}
	d.poll() // sees it
	d.poll() // it has kept still
	if got := d.Info(); got[0].Missing || got[0].Problem != "" {
		t.Errorf("got %+v, want the file in use", got[0])
	}
	if got := d.Place(addr("198.51.100.7")); got.Country == "" {
		t.Error("got no country from the file that came")
	}
	if err := d.Close(); err != nil || len(d.Info()) != 0 {
		t.Errorf("after Close: got %+v, %v, want nothing", d.Info(), err)
	}
}

func TestInfo(t *testing.T) {
	d := open(t, Options{
		Paths:    []string{"demodb/demo-city.mmdb"},
		Embedded: []Embedded{{Name: "asn", Data: demodb.ASN()}},
	})
	built := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	want := []Info{
		{
			Path: "demodb/demo-city.mmdb", Type: "Podmeter-Demo-City", Built: built, Size: len(demodb.City()),
			Fields: []string{"country", "city", "postal_code", "latitude", "longitude"},
		},
		{
			Path: "asn", Type: "Podmeter-Demo-ASN", Built: built, Size: len(demodb.ASN()),
			Fields: []string{"asn", "organization"},
		},
	}
	if diff := cmp.Diff(want, d.Info()); diff != "" {
		t.Errorf("info (-want +got):\n%s", diff)
	}
}

func TestClose(t *testing.T) {
	d := open(t, Options{Paths: []string{"demodb/demo-city.mmdb"}})
	d.Place(addr("198.51.100.7"))
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := d.Place(addr("198.51.100.7")); got != (flows.Place{}) {
		t.Errorf("got %v, want nothing", got)
	}
	if err := d.Reload(); !errors.Is(err, ErrClosed) {
		t.Errorf("reload: got %v, want %v", err, ErrClosed)
	}
	d.poll()
	if got := d.Info(); len(got) != 0 {
		t.Errorf("info: got %v, want none", got)
	}
}
