// SPDX-License-Identifier: Apache-2.0

package sieve

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// field appends a field of bytes.
func field(to []byte, number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), value)
}

func entry(key, value string) string { return string(field(field(nil, 1, key), 2, value)) }

var some = Message{
	1: Whole,
	3: Part(Message{2: Whole}),
	4: Entries("a", "c"),
	5: Part(nil),
	7: Whole,
}

func TestAppend(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 300))
	fields := func(numbers ...any) (m []byte) {
		for i := 0; i < len(numbers); i += 2 {
			m = field(m, protowire.Number(numbers[i].(int)), numbers[i+1].(string))
		}
		return m
	}
	number := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.VarintType), 1<<40)
	for _, test := range []struct {
		name      string
		has, want []byte
	}{
		{"nothing", nil, nil},
		{"a whole field, twice, and others", fields(1, "a", 2, "b", 1, "c", 900, "d"), fields(1, "a", 1, "c")},
		{"a number", append(number, fields(6, "a")...), number},
		{"a part", fields(3, string(fields(1, "a", 2, "b")), 3, string(fields(1, "a"))), fields(3, string(fields(2, "b")), 3, "")},
		{"a part of more than a byte of length", fields(3, string(fields(1, long, 2, long))), fields(3, string(fields(2, long)))},
		{"whether a message is there", fields(5, long), fields(5, "")},
		{"entries", fields(4, entry("a", "1"), 4, entry("b", "2"), 4, entry("c", ""), 4, ""), fields(4, entry("a", "1"), 4, entry("c", ""))},
		{"an entry with two keys", fields(4, entry("a", "1")+entry("b", "2"), 4, entry("b", "1")+entry("a", "2")), fields(4, entry("b", "1")+entry("a", "2"))},
		{"another type than that of a message", protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 1),
			protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := some.Append([]byte("before"), test.has)
			if want := append([]byte("before"), test.want...); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		})
	}
}

// taken is an object that keeps what it was decoded from, and refuses some of it.
type taken struct{ messages [][]byte }

func (o *taken) Unmarshal(message []byte) error {
	o.messages = append(o.messages, slices.Clone(message))
	if bytes.Contains(message, []byte("refused")) {
		return errRefused
	}
	return nil
}

var errRefused = errors.New("refused")

func TestUnmarshal(t *testing.T) {
	plain := field(field(nil, 1, "a"), 2, "b")
	group := protowire.AppendTag(protowire.AppendTag(plain, 9, protowire.StartGroupType), 9, protowire.EndGroupType)
	for _, test := range []struct {
		name      string
		has, want []byte
		err       error
	}{
		{"as expected", plain, field(nil, 1, "a"), nil},
		{"a group", group, group, nil},
		{"an end within a field", plain[:len(plain)-1], plain[:len(plain)-1], nil},
		{"an end within a part", field(plain, 3, "\x12\x05a"), field(plain, 3, "\x12\x05a"), nil},
		{"an end within an entry", field(plain, 4, "\x0a\x05a"), field(plain, 4, "\x0a\x05a"), nil},
		{"a number that is none", []byte{0}, []byte{0}, nil},
		{"a refusal", field(plain, 1, "refused"), field(field(nil, 1, "a"), 1, "refused"), errRefused},
	} {
		t.Run(test.name, func(t *testing.T) {
			var o taken
			if err := some.Unmarshal(test.has, &o); !errors.Is(err, test.err) {
				t.Errorf("got error %v, want %v", err, test.err)
			}
			if len(o.messages) != 1 || !bytes.Equal(o.messages[0], test.want) {
				t.Errorf("got %q decoded, want %q", o.messages, test.want)
			}
		})
	}
}

// What is kept is no longer than what there was, and nothing of it is left out a second time.
func FuzzAppend(f *testing.F) {
	f.Add(field(field(field(nil, 1, "a"), 3, string(field(nil, 2, "b"))), 4, entry("a", "b")))
	f.Add([]byte{0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, message []byte) {
		if got, err := some.Append(nil, message); err == nil {
			again, err := some.Append(nil, got)
			if err != nil || !bytes.Equal(again, got) || len(got) > len(message) {
				t.Errorf("got %q of %q, and %q, %v of that", got, message, again, err)
			}
		}
	})
}
