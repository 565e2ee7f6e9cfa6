// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/oschwald/maxminddb-golang/v2"
)

const (
	// separator is how many zeros are between the search tree and the data.
	separator = 16
	// maxNesting is how deep maps and arrays may be in each other. GeoIP2's are four deep.
	maxNesting = 32
	// maxChecked is how many entries of maps are read in all, lest a file of records that all
	// lead to the same large one keep us busy for hours. GeoLite2-City has some 10 million.
	maxChecked = 1 << 28
	// addressBits is the longest way through the search tree.
	addressBits = 128
)

// errDamaged is what is wrong with a file that the reader takes.
var errDamaged = errors.New("damaged")

func damaged(format string, arguments ...any) error {
	return fmt.Errorf("%w: %w: %s", ErrNotMMDB, errDamaged, fmt.Sprintf(format, arguments...))
}

// check walks over all of a database, as a lookup would find what is damaged one address at a
// time, and much of it by a wrong place: each node of the search tree is in one tree without
// circles, each record that it leads to begins where a value does, whatever values have a
// pointer to, and no value is within another; and each record can be read.
//
// The reader's own Verify has the offset of every value in a map, several times the file. This
// takes a bit for each node and three for each byte of the data: see [checkMemory].
func (db *database) check(file []byte) error {
	c, err := newChecker(db, file)
	if err != nil {
		return err
	}
	if err := c.tree(); err != nil {
		return err
	}
	if err := c.values(); err != nil {
		return err
	}
	return c.records(db.reader)
}

// checkMemory is the most that the check of a file takes, in bytes.
func checkMemory(size int64) int64 { return size * 3 / 8 }

// checker is the state of a check.
type checker struct {
	nodes   []byte // the search tree
	data    []byte
	count   uint
	bits    uint // of a record of the tree
	visited bits
	// wanted are the offsets of data that the tree leads to, found those of values that were
	// walked over, and within those of bytes that are in a value but not its first.
	wanted, found, within bits
}

func newChecker(db *database, file []byte) (*checker, error) {
	m := db.metadata
	size := uint64(m.NodeCount) * uint64(m.RecordSize) / 4
	end := bytes.LastIndex(file, []byte(metadataMarker))
	if end < 0 || size+separator > uint64(end) {
		return nil, damaged("the search tree is longer than the file")
	}
	if zeros := file[size : size+separator]; !bytes.Equal(zeros, make([]byte, separator)) {
		return nil, damaged("no zeros between search tree and data")
	}
	data := file[size+separator : end]
	return &checker{
		nodes: file[:size], data: data, count: m.NodeCount, bits: m.RecordSize, visited: newBits(m.NodeCount),
		wanted: newBits(uint(len(data))), found: newBits(uint(len(data))), within: newBits(uint(len(data))),
	}, nil
}

// bits is a set of numbers.
type bits []uint64

func newBits(n uint) bits      { return make(bits, n/64+1) }
func (b bits) has(n uint) bool { return b[n/64]&(1<<(n%64)) != 0 }
func (b bits) set(n uint)      { b[n/64] |= 1 << (n % 64) }
func (b bits) each(f func(uint) error) error {
	for word, set := range b {
		for bit := uint(0); set != 0; bit, set = bit+1, set>>1 {
			if set&1 == 0 {
				continue
			}
			if err := f(uint(word)*64 + bit); err != nil {
				return err
			}
		}
	}
	return nil
}

// tree walks over the search tree, and takes down which data it leads to.
func (c *checker) tree() error {
	path := make([]uint, 0, addressBits)
	if err := c.node(0, path); err != nil {
		return err
	}
	for n := range c.count {
		if !c.visited.has(n) {
			return damaged("nothing leads to node %d of the search tree", n)
		}
	}
	return nil
}

// node walks over what is below one, to which path leads from the root.
func (c *checker) node(n uint, path []uint) error {
	if c.visited.has(n) {
		if slices.Contains(path, n) {
			return damaged("the search tree has a circle at node %d", n)
		}
		return nil // as the IPv4 part is, which has several prefixes
	}
	if len(path) == addressBits {
		return damaged("a path of the search tree is longer than an address")
	}
	c.visited.set(n)
	path = append(path, n)
	left, right := c.pair(n)
	for _, record := range [2]uint{left, right} {
		switch offset := record - c.count - separator; {
		case record < c.count:
			if err := c.node(record, path); err != nil {
				return err
			}
		case record == c.count:
		case record < c.count+separator || offset >= uint(len(c.data)):
			return damaged("node %d of the search tree leads to no data", n)
		default:
			c.wanted.set(offset)
		}
	}
	return nil
}

// pair reads both records of a node.
func (c *checker) pair(n uint) (left, right uint) {
	b := c.nodes[n*c.bits/4:]
	switch c.bits {
	case 24:
		return big(b[:3]), big(b[3:6])
	case 28:
		return uint(b[3]>>4)<<24 | big(b[:3]), uint(b[3]&15)<<24 | big(b[4:7])
	}
	return big(b[:4]), big(b[4:8])
}

// big reads a number, the highest byte first.
func big(b []byte) (n uint) {
	for _, digit := range b {
		n = n<<8 | uint(digit)
	}
	return n
}

// records decodes each that the search tree leads to.
func (c *checker) records(reader *maxminddb.Reader) error {
	entries := 0
	return c.wanted.each(func(offset uint) error {
		var r record
		if err := reader.LookupOffset(uintptr(offset)).Decode(&r); err != nil {
			return damaged("record at %d: %v", offset, err)
		}
		if entries += r.entries; entries > maxChecked {
			return damaged("its records have more than %d entries", maxChecked)
		}
		return nil
	})
}
