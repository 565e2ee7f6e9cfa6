// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"errors"
	"strconv"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2/mmdbdata"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
)

// field is one of those of a [flows.Place].
type field uint8

const (
	fieldCountry field = iota
	fieldCity
	fieldPostalCode
	fieldLatitude
	fieldLongitude
	fieldASN
	fieldOrganization
	fieldCount
)

// fieldNames are indexed by field.
var fieldNames = [fieldCount]string{"country", "city", "postal_code", "latitude", "longitude", "asn", "organization"}

// fieldSet has one bit per field.
type fieldSet uint8

func (s fieldSet) names() []string {
	var names []string
	for f, name := range fieldNames {
		if s&(1<<f) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// maxEntries bounds the map entries read of one record and maxText its strings,
// in bytes, lest a broken file whose pointers go in circles keep us busy. A
// record of GeoIP2 Enterprise has about 60 entries.
const (
	maxEntries = 1000
	maxText    = 1024
)

var errTooLarge = errors.New("record has too many entries")

// record is what one record of a database says. It implements
// [mmdbdata.CursorUnmarshaler], as the same key holds a map with one vendor and
// a string with another.
type record struct {
	values  [fieldCount]string
	ranks   [fieldCount]uint8 // of the paths that the values came from
	entries int
}

// UnmarshalMaxMindDBCursor reads the known fields and skips the rest.
func (r *record) UnmarshalMaxMindDBCursor(c mmdbdata.Cursor) (mmdbdata.Cursor, error) {
	kind, err := c.Kind()
	if err != nil {
		return mmdbdata.Cursor{}, err
	}
	if kind != mmdbdata.KindMap {
		return c.Skip()
	}
	return r.readMap(c, make([]byte, 0, 64))
}

// readMap reads a map whose keys continue the path.
func (r *record) readMap(c mmdbdata.Cursor, path []byte) (mmdbdata.Cursor, error) {
	entries, err := c.Map()
	if err != nil {
		return mmdbdata.Cursor{}, err
	}
	var next mmdbdata.Cursor
	for {
		key, value, ok := entries.Next(next)
		if !ok {
			return entries.End()
		}
		if r.entries++; r.entries > maxEntries {
			return mmdbdata.Cursor{}, errTooLarge
		}
		if next, err = r.readValue(value, join(path, key)); err != nil {
			return mmdbdata.Cursor{}, err
		}
	}
}

func join(path, key []byte) []byte {
	if len(path) > 0 {
		path = append(path, '.')
	}
	return append(path, key...)
}

func (r *record) readValue(c mmdbdata.Cursor, path []byte) (mmdbdata.Cursor, error) {
	kind, err := c.Kind()
	if err != nil {
		return mmdbdata.Cursor{}, err
	}
	if kind == mmdbdata.KindMap && isParent(path) {
		return r.readMap(c, path)
	}
	f, rank := fieldAt(path)
	if rank == 0 {
		return c.Skip()
	}
	text, next, err := readScalar(c, kind)
	if err != nil {
		return mmdbdata.Cursor{}, err
	}
	r.set(f, rank, text)
	return next, nil
}

// set keeps a value unless it says nothing or one of a better rank is there.
func (r *record) set(f field, rank uint8, text string) {
	value := clean(f, text)
	if value != "" && (r.ranks[f] == 0 || rank < r.ranks[f]) {
		r.values[f], r.ranks[f] = value, rank
	}
}

// readScalar reads a string or number as text; other kinds are skipped.
func readScalar(c mmdbdata.Cursor, kind mmdbdata.Kind) (text string, next mmdbdata.Cursor, err error) {
	switch kind {
	case mmdbdata.KindString:
		return c.ReadStringMaxSize(maxText)
	case mmdbdata.KindFloat64:
		v, next, err := c.ReadFloat64()
		return strconv.FormatFloat(v, 'f', -1, 64), next, err
	case mmdbdata.KindFloat32:
		v, next, err := c.ReadFloat32()
		return strconv.FormatFloat(float64(v), 'f', -1, 32), next, err
	case mmdbdata.KindUint16, mmdbdata.KindUint32, mmdbdata.KindUint64:
		v, next, err := c.ReadUint()
		return strconv.FormatUint(v, 10), next, err
	case mmdbdata.KindInt32:
		v, next, err := c.ReadInt32()
		return strconv.FormatInt(int64(v), 10), next, err
	}
	next, err = c.Skip()
	return "", next, err
}

// isParent says whether a map at the path may hold known fields.
func isParent(path []byte) bool {
	switch string(path) {
	case "country", "city", "city.names", "postal", "location", "traits":
		return true
	}
	return false
}

// fieldAt returns which field a path holds and the rank of the path, 1 being
// the best and 0 none. First come the paths of GeoIP2 and GeoLite2
// (https://dev.maxmind.com/geoip/docs/databases/), then those of GeoIP2
// Enterprise, of IPinfo (https://ipinfo.io/developers/database-types) and of
// ip-location-db (https://github.com/sapics/ip-location-db).
// registered_country and represented_country are left out on purpose: they say
// where a block is registered and for whom, not where it is used.
func fieldAt(path []byte) (f field, rank uint8) {
	switch string(path) {
	case "country.iso_code":
		return fieldCountry, 1
	case "country_code":
		return fieldCountry, 2
	case "country":
		return fieldCountry, 3
	case "city.names.en":
		return fieldCity, 1
	case "city":
		return fieldCity, 2
	case "postal.code":
		return fieldPostalCode, 1
	case "postal_code":
		return fieldPostalCode, 2
	case "postcode":
		return fieldPostalCode, 3
	case "location.latitude":
		return fieldLatitude, 1
	case "latitude":
		return fieldLatitude, 2
	case "lat":
		return fieldLatitude, 3
	case "location.longitude":
		return fieldLongitude, 1
	case "longitude":
		return fieldLongitude, 2
	case "lng":
		return fieldLongitude, 3
	case "autonomous_system_number":
		return fieldASN, 1
	case "traits.autonomous_system_number":
		return fieldASN, 2
	case "asn":
		return fieldASN, 3
	case "autonomous_system_organization":
		return fieldOrganization, 1
	case "traits.autonomous_system_organization":
		return fieldOrganization, 2
	case "as_name":
		return fieldOrganization, 3
	}
	return 0, 0
}

// place returns what the record says. Half a pair of coordinates is none.
func (r *record) place() flows.Place {
	v := &r.values
	p := flows.Place{
		Country: v[fieldCountry], City: v[fieldCity], PostalCode: v[fieldPostalCode],
		ASN: v[fieldASN], Organization: v[fieldOrganization],
	}
	if v[fieldLatitude] != "" && v[fieldLongitude] != "" {
		p.Latitude, p.Longitude = v[fieldLatitude], v[fieldLongitude]
	}
	return p
}

// fields returns which fields the place that the record gives has.
func (r *record) fields() fieldSet {
	p := r.place()
	var s fieldSet
	for f, value := range [fieldCount]string{p.Country, p.City, p.PostalCode, p.Latitude, p.Longitude, p.ASN, p.Organization} {
		if value != "" {
			s |= 1 << f
		}
	}
	return s
}

// clean returns the value of a field as a [flows.Place] has it, empty if the
// text is no such value.
func clean(f field, text string) string {
	switch f {
	case fieldCountry:
		return cleanCountry(text)
	case fieldLatitude:
		return cleanDegrees(text, 90)
	case fieldLongitude:
		return cleanDegrees(text, 180)
	case fieldASN:
		return cleanASN(text)
	}
	if text == "-" { // IP2Location's unknown
		return ""
	}
	return plain.Text(text, plain.PlaceLimit)
}

// cleanCountry takes two letters, in which A1 and A2 (proxy, satellite) of old
// databases are not, and leaves out XX and ZZ, which mean an unknown country.
func cleanCountry(text string) string {
	if len(text) != 2 || !isLetter(text[0]) || !isLetter(text[1]) {
		return ""
	}
	code := strings.ToUpper(text)
	if code == "XX" || code == "ZZ" {
		return ""
	}
	return code
}

func isLetter(b byte) bool { return 'A' <= b&^0x20 && b&^0x20 <= 'Z' }

func cleanDegrees(text string, limit float64) string {
	v, err := strconv.ParseFloat(text, 64)
	// Written so that NaN fails as well.
	if err != nil || !(v >= -limit && v <= limit) {
		return ""
	}
	return strconv.FormatFloat(v+0, 'f', -1, 64) // +0 turns -0 into 0
}

// cleanASN takes 64496 and AS64496; AS 0 is nobody's (RFC 7607).
func cleanASN(text string) string {
	if len(text) > 2 && strings.EqualFold(text[:2], "AS") {
		text = text[2:]
	}
	number, err := strconv.ParseUint(text, 10, 32)
	if err != nil || number == 0 {
		return ""
	}
	return strconv.FormatUint(number, 10)
}
