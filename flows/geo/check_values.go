// SPDX-License-Identifier: Apache-2.0

package geo

// The types of values of the data section (https://maxmind.github.io/MaxMind-DB/).
const (
	typePointer = 1
	typeString  = 2
	typeDouble  = 3
	typeBytes   = 4
	typeUint16  = 5
	typeUint32  = 6
	typeMap     = 7
	typeInt32   = 8
	typeUint64  = 9
	typeUint128 = 10
	typeArray   = 11
	typeBoolean = 14
	typeFloat   = 15
)

// values walks over all records that the tree leads to, and what these have pointers to.
func (c *checker) values() error {
	return c.wanted.each(func(offset uint) error {
		_, err := c.value(offset, 0)
		return err
	})
}

// value walks over one, and returns where the next begins.
func (c *checker) value(at uint, depth int) (next uint, err error) {
	if depth > maxNesting {
		return 0, damaged("values are more than %d deep", maxNesting)
	}
	h, err := c.header(at)
	if err != nil {
		return 0, err
	}
	switch h.kind {
	case typeMap, typeArray:
		return c.container(at, h, depth)
	case typePointer:
		if err := c.follow(h.target, depth); err != nil {
			return 0, err
		}
	default:
		if !fits(h.kind, h.size) {
			return 0, damaged("value at %d is of type %d with %d bytes", at, h.kind, h.size)
		}
	}
	return c.cover(at, h.next)
}

// container walks over what is in a map or an array.
func (c *checker) container(at uint, h header, depth int) (next uint, err error) {
	if next, err = c.cover(at, h.next); err != nil {
		return 0, err
	}
	for range h.size {
		if h.kind == typeMap {
			if err := c.key(next); err != nil {
				return 0, err
			}
			if next, err = c.value(next, depth+1); err != nil {
				return 0, err
			}
		}
		if next, err = c.value(next, depth+1); err != nil {
			return 0, err
		}
	}
	return next, nil
}

// key wants a string, or a pointer to one.
func (c *checker) key(at uint) error {
	h, err := c.header(at)
	if err == nil && h.kind == typePointer {
		h, err = c.header(h.target)
	}
	if err == nil && h.kind != typeString {
		err = damaged("key at %d is of type %d", at, h.kind)
	}
	return err
}

// follow walks over what a pointer leads to, once.
func (c *checker) follow(target uint, depth int) error {
	h, err := c.header(target)
	switch {
	case err != nil:
		return err
	case h.kind == typePointer:
		return damaged("a pointer leads to a pointer at %d", target)
	case c.found.has(target):
		return nil
	}
	_, err = c.value(target, depth+1)
	return err
}

// cover takes down that a value has these bytes, and refuses one within another.
func (c *checker) cover(from, to uint) (next uint, err error) {
	if to > uint(len(c.data)) || to < from {
		return 0, damaged("value at %d ends behind the data", from)
	}
	clash := c.within.has(from)
	c.found.set(from)
	for at := from + 1; at < to; at++ {
		clash = clash || c.found.has(at)
		c.within.set(at)
	}
	if clash {
		return 0, damaged("value at %d is within another", from)
	}
	return to, nil
}

// header is what the first bytes of a value say.
type header struct {
	kind byte
	// size is the number of bytes of a value, 0 or 1 for a boolean, the number of entries of
	// a map or an array.
	size uint
	// target is where a pointer leads.
	target uint
	// next is where the next value begins, or the first one within a map or an array.
	next uint
}

// header reads the first bytes of a value.
func (c *checker) header(at uint) (h header, err error) {
	b := c.data[min(at, uint(len(c.data))):]
	if b = b[:min(len(b), 6)]; len(b) == 0 {
		return h, damaged("a value begins behind the data, at %d", at)
	}
	control, length := b[0], uint(1)
	h.kind = control >> 5
	if h.kind == typePointer {
		return c.pointer(at, b)
	}
	if h.kind == 0 { // an extended type
		if len(b) < 2 {
			return h, damaged("value at %d ends behind the data", at)
		}
		h.kind, length = b[1]+7, 2
	}
	h.size = uint(control & 31)
	if more := h.size; more > 28 {
		more -= 28
		if uint(len(b)) < length+more {
			return h, damaged("value at %d ends behind the data", at)
		}
		h.size = []uint{29, 285, 65821}[more-1] + big(b[length:length+more])
		length += more
	}
	h.next = at + length
	if h.kind != typeMap && h.kind != typeArray && h.kind != typeBoolean {
		h.next += h.size
	}
	return h, nil
}

// pointer reads one. Its size is in two bits, of a target the rest of that byte is a part
// but where it has four others.
func (c *checker) pointer(at uint, b []byte) (header, error) {
	size := uint(b[0]>>3&3) + 1
	if uint(len(b)) < 1+size {
		return header{}, damaged("pointer at %d ends behind the data", at)
	}
	target := big(b[1 : 1+size])
	if size < 4 {
		target |= uint(b[0]&7) << (8 * size)
		target += []uint{0, 2048, 526336}[size-1]
	}
	return header{kind: typePointer, target: target, next: at + 1 + size}, nil
}

// fits reports whether a value of a type may have so many bytes.
func fits(kind byte, size uint) bool {
	switch kind {
	case typeString, typeBytes:
		return true
	case typeDouble:
		return size == 8
	case typeFloat:
		return size == 4
	case typeUint16:
		return size <= 2
	case typeUint32, typeInt32:
		return size <= 4
	case typeUint64:
		return size <= 8
	case typeUint128:
		return size <= 16
	case typeBoolean:
		return size <= 1
	}
	return false
}
