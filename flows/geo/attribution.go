// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"path/filepath"
	"strings"
)

// Attribution is what a free database's licence asks whoever shows its places to say,
// with a link.
type Attribution struct {
	Text string `json:"text"`
	URL  string `json:"url"`
}

// Attribution returns what is to be said of a database; false if nothing is known of it.
// DB-IP Lite (https://db-ip.com/db/lite.php) and GeoLite2
// (https://dev.maxmind.com/geoip/geolite2-free-geolocation-data/) ask for it. In
// ip-location-db's schema the type does not name the maker, the file does.
func (i Info) Attribution() (Attribution, bool) {
	switch file := strings.ToLower(filepath.Base(i.Path)); {
	case strings.HasPrefix(i.Type, "DBIP"), strings.HasPrefix(file, "dbip-"):
		return Attribution{"IP Geolocation by DB-IP", "https://db-ip.com"}, true
	case strings.HasPrefix(i.Type, "GeoLite2"):
		return Attribution{"GeoLite2 data created by MaxMind", "https://www.maxmind.com"}, true
	}
	return Attribution{}, false
}
