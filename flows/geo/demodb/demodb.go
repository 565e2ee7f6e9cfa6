// SPDX-License-Identifier: Apache-2.0

// Package demodb carries two small MaxMind databases for the demo and for
// tests. They place the address ranges that RFC 5737 and RFC 3849 reserve for
// documentation, with AS numbers of RFC 5398 and invented organizations, so
// they say nothing about anyone's network. hack/geoip writes them.
package demodb

import _ "embed" // for the databases

//go:generate go run ../../../hack/geoip -out ..

//go:embed demo-city.mmdb
var city string

//go:embed demo-asn.mmdb
var asn string

// City returns the city database: country, city and coordinates. The caller
// may keep and change the slice.
func City() []byte { return []byte(city) }

// ASN returns the database of autonomous systems: number and organization. The
// caller may keep and change the slice.
func ASN() []byte { return []byte(asn) }
