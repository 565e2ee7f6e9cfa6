// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/podmeter/podmeter/flows/plain"
)

const (
	// fileLimit bounds static and CIDR files, in bytes: 70,000 pods, or 140,000 ranges.
	// Reading one takes some 50 times as much memory for a moment.
	fileLimit = 4 << 20
	// itemLimit bounds what aliases and products (addresses by ports) make of a file: without
	// these it cannot have as many.
	itemLimit = fileLimit / 2
	// faultLimit is how many faults are told, faultLength how much of each, in bytes: their
	// text goes to the log and the status.
	faultLimit  = 50
	faultLength = 400
)

// strict reads a YAML file and notes every fault with its line. It reads on
// after a fault, so that all are told at once, but for a file of nothing but faults.
type strict struct {
	file   string
	faults []fault
	items  int
}

type fault struct {
	line int
	text string
}

// fields are what a mapping may hold: the reader of each key's value.
type fields map[string]func(*yaml.Node)

// parse returns the root of the file's one document, nil after a fault.
func (s *strict) parse(data []byte) *yaml.Node {
	var document, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		s.fault(1, "the file is empty")
		return nil
	case err != nil:
		s.syntax(err, data)
		return nil
	}
	switch err := decoder.Decode(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		s.syntax(err, data)
	default:
		s.fault(more.Line, "a second document: only one is allowed")
	}
	return document.Content[0]
}

// syntax notes an error of the YAML parser, which tells the line in its text if
// at all.
func (s *strict) syntax(err error, data []byte) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, message, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(number); err == nil {
				s.fault(line, "%s", message)
				return
			}
		}
	}
	s.fault(unreadableLine(data), "%s", text)
}

// unreadableLine returns the first line with what YAML forbids anywhere.
func unreadableLine(data []byte) int {
	control := func(r rune) bool { return r < ' ' && r != '\t' && r != '\r' || r == 0x7f }
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if !utf8.Valid(text) || bytes.ContainsFunc(bytes.TrimRight(text, "\n"), control) {
			return line
		}
	}
	return 1
}

func (s *strict) fault(line int, format string, args ...any) {
	if len(s.faults) > faultLimit {
		return
	}
	text := plain.Lines(fmt.Sprintf(format, args...), faultLength)
	if s.faults = append(s.faults, fault{line, text}); len(s.faults) == faultLimit {
		s.faults = append(s.faults, fault{math.MaxInt, "no more faults are looked for"})
	}
}

// goesOn reports whether one more item of the file is to be read, which has the line.
func (s *strict) goesOn(line int) bool {
	if s.items++; s.items == itemLimit {
		s.fault(line, "aliases, or addresses by ports, make more than %d items of the file", itemLimit)
	}
	return s.items < itemLimit && len(s.faults) < faultLimit
}

// err returns all faults in the order of their lines, nil if there are none.
func (s *strict) err() error {
	slices.SortStableFunc(s.faults, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	var all []error
	for _, f := range s.faults {
		if f.line == math.MaxInt {
			all = append(all, fmt.Errorf("%s: %s", s.file, f.text))
			continue
		}
		all = append(all, fmt.Errorf("%s:%d: %s", s.file, f.line, f.text))
	}
	return errors.Join(all...)
}

// mapping reads a mapping key by key; what names it in faults.
func (s *strict) mapping(n *yaml.Node, what string, known fields) {
	s.pairs(n, what, func(key, value *yaml.Node) {
		read := known[key.Value]
		if read == nil {
			s.fault(key.Line, "%s: unknown key %q%s", what, key.Value, didYouMean(key.Value, known))
			return
		}
		read(value)
	})
}

// pairs calls each with the keys, all different, and values of a mapping.
func (s *strict) pairs(n *yaml.Node, what string, each func(key, value *yaml.Node)) {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		s.wrongType(n, what, "a mapping")
		return
	}
	lines := make(map[string]int)
	for i := 0; i+1 < len(n.Content) && s.goesOn(n.Line); i += 2 {
		key, value := target(n.Content[i]), n.Content[i+1]
		if first, ok := lines[key.Value]; ok {
			s.fault(key.Line, "%s: key %q given twice, first on line %d", what, key.Value, first)
			continue
		}
		lines[key.Value] = key.Line
		each(key, value)
	}
}

// sequence reads a list item by item. Nothing at all is an empty list.
func (s *strict) sequence(n *yaml.Node, what string, each func(*yaml.Node)) {
	n = target(n)
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
	case n.Kind != yaml.SequenceNode:
		s.wrongType(n, what, "a list")
	default:
		for _, item := range n.Content {
			if !s.goesOn(n.Line) {
				return
			}
			each(item)
		}
	}
}

// text reads a string that is not empty. After a fault it is empty.
func (s *strict) text(n *yaml.Node, what string) string {
	n = target(n)
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag != "!!str":
		s.wrongType(n, what, "a string")
	case n.Value == "":
		s.fault(n.Line, "%s: is empty", what)
	default:
		return n.Value
	}
	return ""
}

// name reads a string that is exported as it stands. After a fault it is empty.
func (s *strict) name(n *yaml.Node, what string, limit int) string {
	text := s.text(n, what)
	switch {
	case len(text) > limit:
		s.fault(target(n).Line, "%s: has %d bytes, more than %d", what, len(text), limit)
	case !plain.Is(text, limit):
		s.fault(target(n).Line, "%s: %q has a character that names may not have", what, text)
	default:
		return text
	}
	return ""
}

// into returns a reader of a name into a variable.
func (s *strict) into(variable *string, what string, limit int) func(*yaml.Node) {
	return func(n *yaml.Node) { *variable = s.name(n, what, limit) }
}

// address reads an IP address that one machine can own. After a fault it is
// not valid.
func (s *strict) address(n *yaml.Node, what string) netip.Addr {
	text := s.text(n, what)
	if text == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		s.fault(target(n).Line, "%s: %q is not an IP address", what, text)
	case a.Zone() != "" || a.Is4In6():
		s.fault(target(n).Line, "%s: %s: write the address without zone, IPv4 as such", what, text)
	case special(a).Kind == ownerMulticast.Kind, a.IsLoopback(), a.IsUnspecified():
		s.fault(target(n).Line, "%s: %s cannot be the address of one machine", what, text)
	default:
		return a
	}
	return netip.Addr{}
}

// prefix reads a CIDR range. After a fault it is not valid.
func (s *strict) prefix(n *yaml.Node, what string) netip.Prefix {
	text := s.text(n, what)
	if text == "" {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		s.fault(target(n).Line, "%s: %q is not a CIDR range", what, text)
	case p.Addr().Is4In6():
		s.fault(target(n).Line, "%s: %s: write an IPv4 range as such", what, text)
	case p != p.Masked():
		s.fault(target(n).Line, "%s: %s has host bits set; did you mean %s?", what, text, p.Masked())
	default:
		return p
	}
	return netip.Prefix{}
}

func (s *strict) wrongType(n *yaml.Node, what, want string) {
	s.fault(n.Line, "%s: got %s, want %s", what, describe(n), want)
}

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the boolean " + n.Value
	}
	return strconv.Quote(n.Value)
}
