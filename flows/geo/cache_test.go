// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"net/netip"
	"testing"
	"unsafe"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/geo/demodb"
)

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)})
}

func TestCacheIsBounded(t *testing.T) {
	const size = 100
	c := newCache(size)
	for i := range 100 * size {
		c.put(address(i), flows.Place{City: "Bonn"})
		if n := len(c.young) + len(c.old); n > size {
			t.Fatalf("got %d entries after %d, want at most %d", n, i+1, size)
		}
	}
}

func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := newCache(100)
	hot := address(0)
	c.put(hot, flows.Place{City: "Bonn"})
	for i := 1; i < 1000; i++ {
		c.put(address(i), flows.Place{})
		if p, ok := c.get(hot); !ok || p.Value().City != "Bonn" {
			t.Fatalf("after %d others: got %v, %v", i, p, ok)
		}
	}
	if _, ok := c.get(address(1)); ok {
		t.Error("what was used once is still there")
	}
	c.clear()
	if _, ok := c.get(hot); ok {
		t.Error("still there after clear")
	}
}

func TestCachedPlaceAllocatesNothing(t *testing.T) {
	d := open(t, Options{Embedded: []Embedded{{Name: "city", Data: demodb.City()}}})
	for _, a := range []netip.Addr{addr("198.51.100.7"), addr("2001:db8:1::1"), addr("192.0.2.200"), addr("10.0.0.1")} {
		d.Place(a)
		if got := testing.AllocsPerRun(100, func() { d.Place(a) }); got != 0 {
			t.Errorf("%s: got %v allocations, want 0", a, got)
		}
	}
}

func TestEqualPlacesShareStrings(t *testing.T) {
	d := open(t, Options{Embedded: []Embedded{{Name: "city", Data: demodb.City()}}})
	p, q := d.Place(addr("198.51.100.1")), d.Place(addr("198.51.100.2"))
	if unsafe.StringData(p.City) != unsafe.StringData(q.City) {
		t.Error("got two copies of a city's name")
	}
	if unsafe.StringData(p.Latitude) != unsafe.StringData(q.Latitude) {
		t.Error("got two copies of a latitude")
	}
}

func BenchmarkPlaceCached(b *testing.B) {
	d := open(b, Options{Paths: []string{"demodb/demo-city.mmdb", "demodb/demo-asn.mmdb"}})
	a := addr("198.51.100.7")
	b.ReportAllocs()
	for b.Loop() {
		d.Place(a)
	}
}

func BenchmarkPlaceUncached(b *testing.B) {
	d := open(b, Options{Paths: []string{"demodb/demo-city.mmdb", "demodb/demo-asn.mmdb"}})
	a := addr("198.51.100.7")
	b.ReportAllocs()
	for b.Loop() {
		d.locate(a)
	}
}

func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		if _, err := newDatabase(demodb.City()); err != nil {
			b.Fatal(err)
		}
	}
}
