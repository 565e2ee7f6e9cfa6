// SPDX-License-Identifier: Apache-2.0

package geo

import "testing"

func TestAttribution(t *testing.T) {
	for _, test := range []struct {
		path, kind, want string
	}{
		{"/geoip/dbip-country-lite.mmdb", "country ipvAll", "https://db-ip.com"},
		{"/geoip/places.mmdb", "DBIP-City-Lite", "https://db-ip.com"},
		{"/geoip/GeoLite2-City.mmdb", "GeoLite2-City", "https://www.maxmind.com"},
		{"/geoip/GeoIP2-City.mmdb", "GeoIP2-City", ""},
		{"demo-city.mmdb", "Podmeter-Demo-City", ""},
	} {
		if got, ok := (Info{Path: test.path, Type: test.kind}).Attribution(); got.URL != test.want || ok != (test.want != "") {
			t.Errorf("%s, %s: got %+v, %v, want %q", test.path, test.kind, got, ok, test.want)
		}
	}
}
