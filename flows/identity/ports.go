// SPDX-License-Identifier: Apache-2.0

package identity

import "slices"

// portSet is the ports of a service, ascending and each once. All claims of a service
// share one; it is never changed.
type portSet []uint32

func newPortSet(ports []ServicePort) *portSet {
	set := make(portSet, len(ports))
	for i, p := range ports {
		set[i] = p.number()
	}
	slices.Sort(set)
	set = slices.Compact(set)
	return &set
}

// number orders ports by protocol.
func (p ServicePort) number() uint32 { return uint32(p.Protocol)<<16 | uint32(p.Port) }

func (s *portSet) has(p ServicePort) bool {
	_, found := slices.BinarySearch(*s, p.number())
	return found
}

// meets reports whether two sets have a port in common; nil is the set of a claim
// that is of all ports, which only another such one meets.
func (s *portSet) meets(other *portSet) bool {
	if s == nil || other == nil {
		return s == other
	}
	for a, b := *s, *other; len(a) > 0 && len(b) > 0; {
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
