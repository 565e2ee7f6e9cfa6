// SPDX-License-Identifier: Apache-2.0

// Package sieve leaves out of messages in protobuf what nobody reads, before they are decoded.
// An object of the API server is decoded into hundreds of strings and structures of which a
// program reads a dozen; to step over a field costs next to nothing.
//
// What is kept is in the order in which it came, also where a field comes twice, so that the
// generated decoders make the same of it. Nothing here keeps a message, and all of it is safe
// for concurrent use.
package sieve

import (
	"errors"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// Message is what is kept of a message: fields by their numbers, and no others.
type Message []Field

// Field says what is kept of a field. The zero one is left out.
type Field struct {
	keep   keep
	within Message
	keys   []string
}

type keep uint8

const (
	nothing keep = iota
	all
	part
	entries
)

// Whole is a field that is kept as it is.
var Whole = Field{keep: all}

// Part is a field that is a message, of which not all is kept. That it is there is kept also
// if nothing of it is.
func Part(within Message) Field { return Field{keep: part, within: within} }

// Entries is a field that is a map whose keys are strings, of which those entries are kept.
func Entries(keys ...string) Field { return Field{keep: entries, keys: keys} }

// Unmarshaler is an object that a message is decoded into. It copies what it keeps.
type Unmarshaler interface{ Unmarshal([]byte) error }

var errGroup = errors.New("a group")

const (
	// usual is the size of what is kept of most objects, in bytes.
	usual = 4 << 10
	// largest is the largest buffer that is kept.
	largest = 64 << 10
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, usual); return &b }}

// Unmarshal decodes into an empty object what is kept of a message, and all of it if it is not
// of the form that is expected.
func (m Message) Unmarshal(message []byte, into Unmarshaler) error {
	buffer := buffers.Get().(*[]byte)
	defer func() {
		if cap(*buffer) <= largest {
			buffers.Put(buffer)
		}
	}()
	kept, err := m.Append((*buffer)[:0], message)
	*buffer = kept
	if err != nil {
		return into.Unmarshal(message)
	}
	return into.Unmarshal(kept)
}

// Append appends what is kept of a message.
func (m Message) Append(to, message []byte) ([]byte, error) {
	for len(message) > 0 {
		number, kind, tag, size, err := next(message)
		if err != nil {
			return to, err
		}
		if int64(number) < int64(len(m)) {
			if to, err = m[number].append(to, message[:size], tag, kind); err != nil {
				return to, err
			}
		}
		message = message[size:]
	}
	return to, nil
}

// next returns the number and the type of a message's first field, the size of these two, and
// that of all of the field.
func next(message []byte) (number protowire.Number, kind protowire.Type, tag, size int, err error) {
	number, kind, tag = protowire.ConsumeTag(message)
	if tag < 0 {
		return 0, 0, 0, 0, protowire.ParseError(tag)
	}
	if kind == protowire.StartGroupType || kind == protowire.EndGroupType {
		return 0, 0, 0, 0, errGroup
	}
	value := protowire.ConsumeFieldValue(number, kind, message[tag:])
	if value < 0 {
		return 0, 0, 0, 0, protowire.ParseError(value)
	}
	return number, kind, tag, tag + value, nil
}

// append appends what is kept of a field.
func (f *Field) append(to, field []byte, tag int, kind protowire.Type) ([]byte, error) {
	switch {
	case f.keep == nothing:
		return to, nil
	case f.keep == all || kind != protowire.BytesType: // the decoder says what it thinks of another type
		return append(to, field...), nil
	}
	value, _ := protowire.ConsumeBytes(field[tag:])
	if f.keep == entries {
		kept, err := f.has(value)
		if kept {
			to = append(to, field...)
		}
		return to, err
	}
	to = append(to, field[:tag]...)
	begin := len(to)
	to, err := f.within.Append(to, value)
	return withLength(to, begin), err
}

// has reports whether an entry of a map is one of those that are kept. Of several keys the
// last one counts.
func (f *Field) has(entry []byte) (bool, error) {
	var key []byte
	for len(entry) > 0 {
		number, kind, tag, size, err := next(entry)
		if err != nil {
			return false, err
		}
		if number == 1 && kind == protowire.BytesType {
			key, _ = protowire.ConsumeBytes(entry[tag:size])
		}
		entry = entry[size:]
	}
	for _, kept := range f.keys {
		if string(key) == kept {
			return true, nil
		}
	}
	return false, nil
}

// withLength puts the length of what begins somewhere before it.
func withLength(message []byte, begin int) []byte {
	length := uint64(len(message) - begin)
	var room [5]byte // enough for what a slice of an object can have
	prefix := protowire.AppendVarint(room[:0], length)
	message = append(message, prefix...)
	copy(message[begin+len(prefix):], message[begin:])
	copy(message[begin:], prefix)
	return message
}
