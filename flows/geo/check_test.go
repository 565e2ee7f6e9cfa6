// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/oschwald/maxminddb-golang/v2"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/geo/demodb"
)

// opened returns what the reader makes of a file, nil if it refuses it.
func opened(data []byte) *database {
	reader, err := maxminddb.OpenBytes(data)
	if err != nil || checkEnds(data) != nil || checkMetadata(reader.Metadata) != nil {
		return nil
	}
	return &database{reader: reader, metadata: reader.Metadata}
}

// places are those of all networks of a good database, by another one.
func places(of *maxminddb.Reader, by *database) string {
	var all strings.Builder
	for n := range of.Networks() {
		place, err := by.lookup(n.Prefix().Addr())
		fmt.Fprintln(&all, place, err != nil)
	}
	return all.String()
}

// What is damaged in a place where it can be seen is refused, by its kind.
func TestDamagedIsRefused(t *testing.T) {
	good := build(t, mmdbwriter.Options{IPVersion: 4, RecordSize: 32}, networks{
		"198.51.100.0/24": m{"country": s("DE"), "city": s("Köln")}, "203.0.113.0/24": m{"country": s("FR"), "city": s("Köln")},
	})
	count := int(opened(good).metadata.NodeCount)
	data := count*8 + separator
	record := func(file []byte, node, side int) []byte { return file[node*8+side*4:][:4] }
	for name, test := range map[string]struct {
		damage func(file []byte)
		want   string
	}{
		"circle":           {func(f []byte) { copy(record(f, 1, 0), []byte{0, 0, 0, 1}) }, "circle at node 1"},
		"lost node":        {func(f []byte) { copy(record(f, 0, 1), []byte{0, 0, byte(count >> 8), byte(count)}) }, "nothing leads to node 1"},
		"separator":        {func(f []byte) { f[data-1] = 1 }, "no zeros between"},
		"in the separator": {func(f []byte) { copy(record(f, 1, 0), []byte{0, 0, byte((count + 3) >> 8), byte(count + 3)}) }, "leads to no data"},
		"within a value":   {func(f []byte) { retarget(f, count, func(offset int) int { return offset + 2 }) }, "damaged"},
		"of another type":  {func(f []byte) { f[data+bytes.Index(f[data:], []byte("DE"))-1] = 0x62 }, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			file := bytes.Clone(good)
			test.damage(file)
			if err := opened(file).check(file); !errors.Is(err, ErrNotMMDB) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %v: %s", err, ErrNotMMDB, test.want)
			}
		})
	}
}

// retarget changes where the first record of the tree that leads to data leads.
func retarget(file []byte, count int, change func(offset int) int) {
	for at := 0; at < count*8; at += 4 {
		if n := int(big(file[at : at+4])); n > count {
			n = change(n)
			copy(file[at:], []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
			return
		}
	}
}

// Of files with one flipped bit that the reader takes, more are refused than by its own
// check, of those that place an address wrongly; and no bit of the tree gives an address a
// place that no address has.
func TestFlippedBits(t *testing.T) {
	good := demodb.City()
	reader, err := maxminddb.OpenBytes(good)
	if err != nil {
		t.Fatal(err)
	}
	want := places(reader, opened(good))
	known := map[string]bool{fmt.Sprintln(flows.Place{}, false): true}
	for line := range strings.Lines(want) {
		known[line] = true
	}
	tree := int(reader.Metadata.NodeCount*reader.Metadata.RecordSize) / 4
	random := rand.New(rand.NewPCG(1, 2))
	taken, wrong, refused, byReader := 0, 0, 0, 0
	for range 2000 {
		file, at := bytes.Clone(good), random.IntN(len(good))
		file[at] ^= 1 << random.IntN(8)
		db := opened(file)
		if db == nil || db.sample() != nil {
			continue
		}
		taken++
		got, damaged := places(reader, db), db.check(file) != nil
		if got == want {
			continue
		}
		wrong++
		if damaged {
			refused++
		}
		if db.reader.Verify() != nil {
			byReader++
		}
		for line := range strings.Lines(got) {
			if !damaged && at < tree && !known[line] {
				t.Fatalf("bit of byte %d, in the tree: got %s, want it refused", at, line)
			}
		}
	}
	t.Logf("%d taken by the reader, %d of them place wrongly: %d refused here, %d by Verify", taken, wrong, refused, byReader)
	if refused < byReader || refused*3 < wrong {
		t.Errorf("got %d of %d refused, want a third at least, and Verify's %d", refused, wrong, byReader)
	}
}

// What makers of databases write is not damaged.
func TestGoodIsNotDamaged(t *testing.T) {
	for n, file := range fixtures(t) {
		if err := opened(file).check(file); err != nil {
			t.Errorf("fixture %d: %v", n, err)
		}
	}
}

// The check takes no more memory than is left for it, beside one record at a time.
func TestCheckMemory(t *testing.T) {
	all := make(networks)
	for n := range 20_000 {
		all[netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(n >> 8), byte(n), 0}), 24).String()] = m{
			"country": s("DE"), "city": s(fmt.Sprintf("%032d", n)),
		}
	}
	file := build(t, mmdbwriter.Options{IPVersion: 4, RecordSize: 24}, all)
	db := opened(file)
	c, err := newChecker(db, file)
	if err != nil {
		t.Fatal(err)
	}
	words := cap(c.visited) + cap(c.wanted) + cap(c.found) + cap(c.within)
	if got, most := int64(words)*8, checkMemory(int64(len(file))); got > most {
		t.Errorf("a file of %d bytes: got %d bytes for its check, want %d at most", len(file), got, most)
	}
	if err := db.check(file); err != nil {
		t.Error(err)
	}
}

func BenchmarkCheck(b *testing.B) {
	db := opened(demodb.City())
	b.SetBytes(int64(len(demodb.City())))
	b.ReportAllocs()
	for b.Loop() {
		if err := db.check(demodb.City()); err != nil {
			b.Fatal(err)
		}
	}
}
