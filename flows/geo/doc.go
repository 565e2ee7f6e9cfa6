// SPDX-License-Identifier: Apache-2.0

// Package geo tells where public addresses are, from files in the MaxMind DB
// format: city, country and autonomous system databases, alone or together.
//
// What a file gives is decided by the fields found in its records and not by
// the name of its type: the GeoIP2 and GeoLite2 layout (DB-IP writes it too)
// and the flat ones of IPinfo and ip-location-db are known. Where the records
// are silent a place stays empty, but for coordinates: those of the country's
// centroid stand in, so that a country database is enough for a map. The
// country in which a block is registered never stands in for the one it is used
// in.
//
// A [Databases] owns a private copy of each file, so that replacing, truncating
// or rewriting a file can neither crash a reader nor mix two files. The copies
// lie outside the Go heap: a city database of 60–120 MB there would let the
// garbage collector grow the process by as much again. While a file is reloaded
// both its copies exist.
//
// All methods may be called from any goroutine. Close gives the memory back;
// after it every place is unknown.
package geo
