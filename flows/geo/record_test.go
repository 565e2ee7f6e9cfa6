// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/podmeter/podmeter/flows"
)

func TestRecordLayouts(t *testing.T) {
	tests := []struct {
		name   string
		record m
		want   flows.Place
	}{
		{
			"geoip2 city",
			m{
				"city":               m{"geoname_id": mmdbtype.Uint32(1), "names": m{"de": s("München"), "en": s("Munich")}},
				"continent":          m{"code": s("EU")},
				"country":            m{"iso_code": s("DE"), "names": m{"en": s("Germany")}},
				"registered_country": m{"iso_code": s("US")},
				"location": m{
					"accuracy_radius": mmdbtype.Uint16(5), "latitude": mmdbtype.Float64(48.1),
					"longitude": mmdbtype.Float64(11.5), "time_zone": s("Europe/Berlin"),
				},
				"postal":       m{"code": s("80331")},
				"subdivisions": mmdbtype.Slice{m{"iso_code": s("BY")}},
			},
			flows.Place{Country: "DE", City: "Munich", PostalCode: "80331", Latitude: "48.1", Longitude: "11.5"},
		},
		{
			"geoip2 enterprise",
			m{"traits": m{
				"autonomous_system_number":       mmdbtype.Uint32(4294967295),
				"autonomous_system_organization": s("Example"),
			}},
			flows.Place{ASN: "4294967295", Organization: "Example"},
		},
		{
			"ipinfo lite",
			m{
				"country": s("Germany"), "country_code": s("DE"), "asn": s("AS64496"), "as_name": s("Example"),
				"as_domain": s("example.com"),
			},
			flows.Place{Country: "DE", ASN: "64496", Organization: "Example"},
		},
		{
			"ipinfo location",
			m{"country": s("DE"), "city": s("Bonn"), "postal_code": s("53111"), "lat": s("50.73430"), "lng": s("7.09549")},
			flows.Place{Country: "DE", City: "Bonn", PostalCode: "53111", Latitude: "50.7343", Longitude: "7.09549"},
		},
		{
			"ip-location-db country",
			m{"country_code": s("DE")},
			flows.Place{Country: "DE"},
		},
		{
			"ip-location-db city",
			m{
				"city": s("Bonn"), "country_code": s("DE"), "latitude": mmdbtype.Float32(50.7343), "longitude": mmdbtype.Float32(7.0955),
				"postcode": s("53111"), "state1": s("North Rhine-Westphalia"), "state2": s(""), "timezone": s(""),
			},
			flows.Place{Country: "DE", City: "Bonn", PostalCode: "53111", Latitude: "50.7343", Longitude: "7.0955"},
		},
		{
			"postal codes are no numbers, but may be written so",
			m{"postal": m{"code": s("00100")}, "postal_code": s("1"), "postcode": mmdbtype.Uint32(2)},
			flows.Place{PostalCode: "00100"},
		},
		{
			"float32 and integers",
			m{"latitude": mmdbtype.Float32(50.1), "longitude": mmdbtype.Int32(-7), "asn": mmdbtype.Uint64(5)},
			flows.Place{Latitude: "50.1", Longitude: "-7", ASN: "5"},
		},
		{
			"better path wins in either order",
			m{"country": m{"iso_code": s("DE")}, "country_code": s("FR"), "asn": s("1"), "autonomous_system_number": mmdbtype.Uint32(2)},
			flows.Place{Country: "DE", ASN: "2"},
		},
		{
			"kinds we do not expect",
			m{"country": mmdbtype.Slice{s("DE")}, "asn": m{"number": s("1")}, "city": mmdbtype.Bool(true), "as_name": s("Example")},
			flows.Place{Organization: "Example"},
		},
		{
			"country unknown, registered known",
			m{"registered_country": m{"iso_code": s("US")}, "represented_country": m{"iso_code": s("US")}, "asn": s("1")},
			flows.Place{ASN: "1"},
		},
		{
			"invalid UTF-8",
			m{"city": m{"names": m{"en": s("Z\xfcrich")}}, "as_name": s("\xff\xfeExample\x80")},
			flows.Place{City: "Z\uFFFDrich", Organization: "\uFFFDExample\uFFFD"},
		},
		{
			"IP2Location's unknown",
			m{"country": m{"iso_code": s("-")}, "city": m{"names": m{"en": s("-")}}, "asn": s("1")},
			flows.Place{ASN: "1"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			db, err := newDatabase(one(t, tt.record))
			if err != nil {
				t.Fatal(err)
			}
			got, err := db.lookup(addr("198.51.100.7"))
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Errorf("got error %v, place (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestRecordBounds(t *testing.T) {
	many := m{"asn": s("1")}
	for i := range maxEntries {
		many[mmdbtype.String(fmt.Sprint("key", i))] = mmdbtype.Bool(true)
	}
	if _, err := newDatabase(one(t, many)); !errors.Is(err, errTooLarge) {
		t.Errorf("%d entries: got %v, want %v", len(many), err, errTooLarge)
	}
	long := m{"as_name": s(make([]byte, maxText+1))}
	if _, err := newDatabase(one(t, long)); !errors.Is(err, ErrNotMMDB) {
		t.Errorf("long name: got %v, want %v", err, ErrNotMMDB)
	}
}

func TestClean(t *testing.T) {
	tests := []struct {
		field      field
		text, want string
	}{
		{fieldCountry, "DE", "DE"},
		{fieldCountry, "de", "DE"},
		{fieldCountry, "DEU", ""},
		{fieldCountry, "A1", ""},
		{fieldCountry, "[]", ""},
		{fieldCountry, "ZZ", ""},
		{fieldCountry, "XX", ""},
		{fieldCountry, "XK", "XK"}, // Kosovo
		{fieldLatitude, "90", "90"},
		{fieldLatitude, "-90.0", "-90"},
		{fieldLatitude, "90.1", ""},
		{fieldLatitude, "NaN", ""},
		{fieldLatitude, "-0", "0"},
		{fieldLatitude, "0.00001", "0.00001"},
		{fieldLongitude, "1e2", "100"},
		{fieldLongitude, "-180.5", ""},
		{fieldLongitude, fmt.Sprint(math.Inf(1)), ""},
		{fieldASN, "AS64496", "64496"},
		{fieldASN, "as1", "1"},
		{fieldASN, "0", ""},
		{fieldASN, "AS0", ""},
		{fieldASN, "AS", ""},
		{fieldASN, "-1", ""},
		{fieldASN, "4294967296", ""},
		{fieldOrganization, "-", ""},
		{fieldOrganization, "a\xffb", "a\uFFFDb"},
	}
	for _, tt := range tests {
		if got := clean(tt.field, tt.text); got != tt.want {
			t.Errorf("%s %q: got %q, want %q", fieldNames[tt.field], tt.text, got, tt.want)
		}
	}
}
