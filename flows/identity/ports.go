// SPDX-License-Identifier: Apache-2.0

package identity

import "slices"

// portSet is the ports of a service, ascending and each once. All claims of a service
// share one; but for past it is never changed.
type portSet struct {
	numbers []uint32
	// from is since when the service has each of them; nil if it has had all of them for as
	// long as any address.
	from []int64
	// past is how many claims have it that have ended.
	past int
}

// hold counts a claim that has ended. It returns how many ports are kept for that, 0 if they
// were for another one.
func (s *portSet) hold() int {
	if s == nil {
		return 0
	}
	if s.past++; s.past > 1 {
		return 0
	}
	return len(s.numbers)
}

// release is what hold is when such a claim is forgotten.
func (s *portSet) release() int {
	if s == nil {
		return 0
	}
	if s.past--; s.past > 0 {
		return 0
	}
	return len(s.numbers)
}

func newPortSet(ports []ServicePort) *portSet {
	numbers := make([]uint32, len(ports))
	for i, p := range ports {
		numbers[i] = p.number()
	}
	slices.Sort(numbers)
	return &portSet{numbers: slices.Compact(numbers)}
}

// number orders ports by protocol.
func (p ServicePort) number() uint32 { return uint32(p.Protocol)<<16 | uint32(p.Port) }

func (s *portSet) has(p ServicePort) bool {
	_, found := slices.BinarySearch(s.numbers, p.number())
	return found
}

// since returns when the service got a port of the set.
func (s *portSet) since(p ServicePort) int64 {
	if i, found := slices.BinarySearch(s.numbers, p.number()); found && s.from != nil {
		return s.from[i]
	}
	return beginning
}

// following returns the set as the next one of a service: ports of the one before are had
// for as long as there, others from now on.
func (s *portSet) following(before *portSet, now int64) *portSet {
	if s == nil || before == nil {
		return s
	}
	from := make([]int64, len(s.numbers))
	for i, b := 0, 0; i < len(from); i++ {
		for b < len(before.numbers) && before.numbers[b] < s.numbers[i] {
			b++
		}
		switch kept := b < len(before.numbers) && before.numbers[b] == s.numbers[i]; {
		case !kept:
			from[i] = now
		case before.from == nil:
			from[i] = beginning
		default:
			from[i] = before.from[b]
		}
	}
	return &portSet{numbers: s.numbers, from: from}
}

// equal reports whether two sets are of the same ports; no set equals none.
func (s *portSet) equal(other *portSet) bool {
	return s != nil && other != nil && slices.Equal(s.numbers, other.numbers)
}

// meets reports whether two sets have a port in common; nil is the set of a claim
// that is of all ports, which only another such one meets.
func (s *portSet) meets(other *portSet) bool {
	if s == nil || other == nil {
		return s == other
	}
	for a, b := s.numbers, other.numbers; len(a) > 0 && len(b) > 0; {
		switch {
		case a[0] == b[0]:
			return true
		case a[0] < b[0]:
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	return false
}
