// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"testing"
	"unicode/utf8"
)

// FuzzOpen opens arbitrary bytes: it must not panic or hang, and whatever it
// then says of an address must be fit for labels.
func FuzzOpen(f *testing.F) {
	for _, data := range fixtures(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		db, err := newDatabase(data)
		if err != nil {
			return
		}
		for _, a := range []string{"198.51.100.7", "203.0.113.200", "1.1.1.1", "2001:db8:1::1", "2a00::1"} {
			p, err := db.lookup(addr(a))
			if err != nil {
				continue
			}
			for _, value := range []string{p.Country, p.City, p.PostalCode, p.Latitude, p.Longitude, p.ASN, p.Organization} {
				if !utf8.ValidString(value) {
					t.Errorf("%s: got %q, which is no valid UTF-8", a, value)
				}
			}
			if len(p.Country) != 0 && len(p.Country) != 2 {
				t.Errorf("%s: got country %q", a, p.Country)
			}
			if (p.Latitude == "") != (p.Longitude == "") {
				t.Errorf("%s: got half a pair of coordinates: %v", a, p)
			}
		}
	})
}
