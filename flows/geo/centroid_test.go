// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"bufio"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestCentroid(t *testing.T) {
	tests := []struct{ code, latitude, longitude string }{
		{"AD", "42.5", "1.5"}, {"DE", "51.1", "10.4"}, {"NZ", "-41.8", "171.5"}, {"XK", "42.6", "20.9"}, {"ZW", "-19", "29.9"},
		{"", "", ""}, {"A", "", ""}, {"EU", "", ""}, {"AP", "", ""}, {"ZZ", "", ""}, {"de", "", ""},
	}
	for _, tt := range tests {
		if latitude, longitude := Centroid(tt.code); latitude != tt.latitude || longitude != tt.longitude {
			t.Errorf("%q: got %q, %q, want %q, %q", tt.code, latitude, longitude, tt.latitude, tt.longitude)
		}
	}
}

// Codes are sorted, as they are searched for by halves, and coordinates are as a
// record's would be, so that equal places stay equal.
func TestTableOfCentroids(t *testing.T) {
	for i, m := range centroids {
		if i > 0 && centroids[i-1].code >= m.code {
			t.Errorf("got %s after %s, want codes to go up", m.code, centroids[i-1].code)
		}
		if got := cleanCountry(m.code); got != m.code {
			t.Errorf("%q: got a code that is cleaned to %q", m.code, got)
		}
		for _, degrees := range []struct {
			text  string
			limit float64
		}{{m.latitude, 90}, {m.longitude, 180}} {
			if got := cleanDegrees(degrees.text, degrees.limit); got != degrees.text || got == "" {
				t.Errorf("%s: got %q, want the form %q", m.code, degrees.text, got)
			}
		}
	}
}

// zones is where systems keep the table of time zones, which is in the public domain.
const zones = "/usr/share/zoneinfo/zone.tab"

// cities returns the coordinates of the principal cities of countries, by code:
// one or more for each time zone.
func cities(t *testing.T) map[string][][2]float64 {
	t.Helper()
	file, err := os.Open(zones)
	if err != nil {
		t.Skip("no table of time zones here, as the package tzdata brings:", err)
	}
	defer file.Close() // of a read: nothing to lose
	found := make(map[string][][2]float64)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		columns := strings.Split(lines.Text(), "\t")
		if strings.HasPrefix(lines.Text(), "#") || len(columns) < 3 {
			continue
		}
		split := 1 + strings.IndexAny(columns[1][1:], "+-")
		at := [2]float64{degrees(t, columns[1][:split], 2), degrees(t, columns[1][split:], 3)}
		found[columns[0]] = append(found[columns[0]], at)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// degrees reads an angle of ISO 6709: a sign, whole degrees of so many digits, and
// minutes of two, whatever follows.
func degrees(t *testing.T, text string, digits int) float64 {
	t.Helper()
	whole, err1 := strconv.ParseFloat(text[:1+digits], 64)
	minutes, err2 := strconv.ParseFloat(text[:1]+text[1+digits:3+digits], 64)
	if err1 != nil || err2 != nil {
		t.Fatalf("%q: got %v, %v, want degrees and minutes", text, err1, err2)
	}
	return whole + minutes/60
}

// Each country has a principal city within 1,100 km of its centroid. That finds
// swapped rows, signs and columns, if not an error of a degree.
func TestCentroidsAreInTheirCountries(t *testing.T) {
	const far = "CN" // the table has Shanghai and Ürümqi alone
	for code, all := range cities(t) {
		latitude, longitude := Centroid(code)
		if latitude == "" {
			t.Errorf("%s: got no centroid", code)
			continue
		}
		nearest := math.Inf(1)
		for _, city := range all {
			nearest = min(nearest, distance(t, latitude, longitude, city))
		}
		if nearest > 1100 && code != far {
			t.Errorf("%s: got %s, %s, which is %.0f km from any city of it", code, latitude, longitude, nearest)
		}
	}
}

// distance returns the kilometres between two points on a sphere of the earth's mean
// radius.
func distance(t *testing.T, latitude, longitude string, city [2]float64) float64 {
	t.Helper()
	a, err1 := strconv.ParseFloat(latitude, 64)
	b, err2 := strconv.ParseFloat(longitude, 64)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	const radian = math.Pi / 180
	cos := math.Sin(a*radian)*math.Sin(city[0]*radian) +
		math.Cos(a*radian)*math.Cos(city[0]*radian)*math.Cos((b-city[1])*radian)
	return 6371 * math.Acos(min(1, cos))
}
