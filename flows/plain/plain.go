// SPDX-License-Identifier: Apache-2.0

// Package plain bounds and cleans the strings that others choose: names of the
// API, of cgroups, files, databases and processes, and messages of servers.
// Every such string passes it before it is kept, compared, hashed, logged or
// exported, so that no tenant decides how much memory a name takes or what it
// does to a terminal.
//
// A string that is plain already is returned as it is, without an allocation;
// every legal name of Kubernetes is one. All functions are pure.
package plain

import (
	"crypto/sha256"
	"encoding/hex"
	"unicode"
	"unicode/utf8"
)

// The limits, in bytes.
const (
	// LabelLimit is that of an RFC 1123 label, of which namespaces, Services,
	// containers, values of labels and kinds of custom resources are made.
	LabelLimit = 63
	// NameLimit is that of an RFC 1123 subdomain: pods, nodes, workloads.
	NameLimit = 253
	// UIDLimit holds a UID (36 bytes), the hash of a static pod (32) and the id of
	// a container (64), and leaves room for other makers of them.
	UIDLimit = 128
	// KernelLimit holds the 15 bytes of the name of a process or an interface, each
	// of which may be replaced by a character of 3.
	KernelLimit = 45
	// PlaceLimit is that of a city or an organization of a database of places.
	PlaceLimit = 256
	// ValueLimit is that of any label of a metric: the largest of those above.
	ValueLimit = PlaceLimit
	// MessageLimit is that of an error or an answer that is kept or shown.
	MessageLimit = 1024
	// LogLimit is that of one value of a log line.
	LogLimit = 4096
)

// mark begins the hash at the end of what was cut. No legal name has it.
const mark = "~"

// tail is the length of the mark and 64 bits in hexadecimal.
const tail = len(mark) + 16

// Text returns a string as one line of at most limit bytes, which is more than 17:
// control and format characters (line breaks, escapes, changes of the direction
// of writing), what is not UTF-8 and the angle brackets of markup are replaced
// by U+FFFD, a run of them by one. What is too long is cut between two characters and ends in a hash of
// the whole, so that two long strings that differ stay different.
func Text(s string, limit int) string {
	if Is(s, limit) {
		return s
	}
	return rebuild(s, limit, inLine)
}

// Lines is [Text] for messages whose writer escapes line breaks, or is to keep them:
// line breaks, tabs and angle brackets stay.
func Lines(s string, limit int) string {
	if fits(s, limit, inLines) {
		return s
	}
	return rebuild(s, limit, inLines)
}

// Is reports whether Text would return the string as it is.
func Is(s string, limit int) bool { return fits(s, limit, inLine) }

// alphabet reports whether a character may stay.
type alphabet func(rune) bool

func inLine(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r <= '~' && r != '<' && r != '>'
	}
	return unicode.IsGraphic(r)
}

func inLines(r rune) bool { return r == '\n' || r == '\t' || r == '<' || r == '>' || inLine(r) }

func fits(s string, limit int, may alphabet) bool {
	if len(s) > limit {
		return false
	}
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c < ' ' || c >= '<' && (c == '<' || c == '>' || c > '~') {
				if !may(rune(c)) {
					return false
				}
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if size == 1 || !may(r) { // one byte of those is not UTF-8
			return false
		}
		i += size
	}
	return true
}

// broken reports whether a string begins with a byte that is not UTF-8.
func broken(s string) bool {
	_, size := utf8.DecodeRuneInString(s)
	return size == 1
}

// rebuild reads no more of a string than it keeps, but for the hash.
func rebuild(s string, limit int, may alphabet) string {
	kept := make([]byte, 0, min(len(s), limit)+utf8.UTFMax)
	whole, replaced := 0, false // bytes that leave room for the hash; the last character
	for i, r := range s {
		bad := !may(r) || r == utf8.RuneError && broken(s[i:])
		again := bad && replaced
		if replaced = bad; again {
			continue
		}
		if bad {
			r = utf8.RuneError
		}
		if kept = utf8.AppendRune(kept, r); len(kept) > limit {
			break
		}
		if len(kept) <= limit-tail {
			whole = len(kept)
		}
	}
	if len(s) <= limit && len(kept) <= limit {
		return string(kept)
	}
	return string(kept[:whole]) + mark + hash(s)
}

// hash returns 64 bits of a string's SHA-256: nobody makes another with the same.
func hash(s string) string {
	h := sha256.New()
	for part := make([]byte, 4096); len(s) > 0; {
		n := copy(part, s)
		h.Write(part[:n]) // never fails
		s = s[n:]
	}
	return hex.EncodeToString(h.Sum(nil)[:(tail-len(mark))/2])
}
