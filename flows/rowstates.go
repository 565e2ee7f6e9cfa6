// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// RowStates are the rows of a family. They are most of a state, which each drain writes down, so
// that they are written without reflection, and their labels are encoded once.
type RowStates[L comparable] []RowState[L]

// RowState is a row of a family.
type RowState[L comparable] struct {
	_       struct{} `cbor:",toarray"`
	Labels  L
	Pair    PairState
	Last    time.Time // end of the last epoch that had a byte of it
	Counted bool      // towards the limits

	row *row[L] // nil of what was read
}

func (f *family[L]) state() RowStates[L] {
	rows := make(RowStates[L], 0, len(f.rows))
	for _, r := range f.rows {
		rows = append(rows, RowState[L]{Labels: r.labels, Pair: r.counterPair.state(), Last: r.last, Counted: r.counted, row: r})
	}
	return rows
}

// restore adds rows, after bound has made their labels plain. Those whose labels are equal
// then are one.
func (f *family[L]) restore(rows []RowState[L], bound func(*L)) {
	for i := range rows {
		s := &rows[i]
		bound(&s.Labels)
		r, pair := f.fixed(s.Labels), s.Pair.pair()
		r.merge(&pair)
		if s.Last.After(r.last) {
			r.last = s.Last
		}
		if s.Counted && !r.counted {
			r.counted = true
			f.counted++
		}
	}
}

// What a CBOR item begins with (RFC 8949, section 3), or is.
const (
	cborUint     = 0 << 5
	cborNegative = 1 << 5 // -1 less a number
	cborText     = 3 << 5
	cborArray    = 4 << 5
	cborMap      = 5 << 5
	cborFalse    = 7<<5 | 20
	cborTrue     = 7<<5 | 21
	cborNull     = 7<<5 | 22
	cborFloat    = 7<<5 | 27 // of 64 bits

	// rowBytes is what a row takes, or more.
	rowBytes = 256
)

// MarshalCBOR implements [cbor.Marshaler]: what the library makes of a plain slice where times are
// [cbor.TimeUnixMicro].
func (s RowStates[L]) MarshalCBOR() ([]byte, error) {
	if s == nil {
		return []byte{cborNull}, nil
	}
	b := appendHead(make([]byte, 0, 16+rowBytes*len(s)), cborArray, uint64(len(s)))
	for i := range s {
		r := &s[i]
		labels, err := r.labels()
		if err != nil {
			return nil, fmt.Errorf("encode labels: %w", err)
		}
		b = append(appendHead(b, cborArray, 4), labels...)
		b = appendTime(r.Pair.append(b), r.Last)
		if r.Counted {
			b = append(b, cborTrue)
		} else {
			b = append(b, cborFalse)
		}
	}
	return b, nil
}

// labels returns them encoded; those of a row keep being so.
func (s *RowState[L]) labels() (encoded []byte, err error) {
	if s.row == nil {
		return cbor.Marshal(s.Labels)
	}
	if s.row.encoded == nil {
		s.row.encoded, err = cbor.Marshal(s.Labels)
	}
	return s.row.encoded, err
}

func (s *PairState) append(b []byte) []byte {
	b = appendHead(appendHead(b, cborArray, 2), cborArray, Directions)
	for _, c := range s.Counters {
		b = appendHead(b, cborMap, 2)
		b = appendHead(appendText(b, "bytes"), cborUint, c.Bytes)
		b = appendHead(appendText(b, "packets"), cborUint, c.Packets)
	}
	b = appendHead(b, cborArray, Directions)
	for _, created := range s.Created {
		b = appendTime(b, created)
	}
	return b
}

// appendHead appends the beginning of an item: its kind and a number, in as few bytes as it takes.
func appendHead(b []byte, kind byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, kind|byte(n))
	case n <= math.MaxUint8:
		return append(b, kind|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, kind|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, kind|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, kind|27), n)
}

func appendText(b []byte, text string) []byte {
	return append(appendHead(b, cborText, uint64(len(text))), text...)
}

// appendTime appends a time in seconds since 1970, of the precision of microseconds.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, cborNull)
	}
	seconds := float64(t.Round(time.Microsecond).UnixNano()) / 1e9
	return binary.BigEndian.AppendUint64(append(b, cborFloat), math.Float64bits(seconds))
}
