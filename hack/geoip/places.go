// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/maxmind/mmdbwriter/mmdbtype"

// place is where a network is said to be.
type place struct {
	network             string
	iso, country, city  string
	postalCode          string // empty for one without
	latitude, longitude float64
	asn                 uint32 // of 64496–64511, RFC 5398
	organization        string
}

// places returns all networks. 192.0.2.128/25 is left out: an address of it is
// an external one that no database knows.
func places() []place {
	return []place{
		{"198.51.100.0/25", "CH", "Switzerland", "Zürich", "8001", 47.3769, 8.5417, 64496, "Example Transit"},
		{"198.51.100.128/25", "JP", "Japan", "Tokyo", "100-0001", 35.6895, 139.6917, 64497, "Example Object Storage"},
		{"203.0.113.0/25", "BR", "Brazil", "São Paulo", "01001", -23.5475, -46.6361, 64498, "Exemplo Telecom"},
		{"203.0.113.128/25", "KE", "Kenya", "Nairobi", "00100", -1.2833, 36.8167, 64499, "Example Mobile"},
		{"192.0.2.0/25", "CA", "Canada", "Montréal", "H2Y", 45.5088, -73.5878, 64500, "Example CDN"},
		{"2001:db8:1::/48", "IS", "Iceland", "Reykjavík", "101", 64.1355, -21.8954, 64501, "Example Geothermal Hosting"},
		{"2001:db8:2::/48", "NZ", "New Zealand", "Wellington", "", -41.2866, 174.7756, 64502, "Example Fibre"},
	}
}

func names(en string) mmdbtype.Map {
	return mmdbtype.Map{"en": mmdbtype.String(en)}
}

func countryRecord(p place) mmdbtype.Map {
	return mmdbtype.Map{"country": mmdbtype.Map{
		"iso_code": mmdbtype.String(p.iso),
		"names":    names(p.country),
	}}
}

func cityRecord(p place) mmdbtype.Map {
	r := countryRecord(p)
	r["city"] = mmdbtype.Map{"names": names(p.city)}
	r["location"] = mmdbtype.Map{
		"latitude":  mmdbtype.Float64(p.latitude),
		"longitude": mmdbtype.Float64(p.longitude),
	}
	if p.postalCode != "" {
		r["postal"] = mmdbtype.Map{"code": mmdbtype.String(p.postalCode)}
	}
	return r
}

func asnRecord(p place) mmdbtype.Map {
	return mmdbtype.Map{
		"autonomous_system_number":       mmdbtype.Uint32(p.asn),
		"autonomous_system_organization": mmdbtype.String(p.organization),
	}
}
