// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"slices"
)

// ranges maps prefixes to values; the longest that holds an address wins.
// Prefixes come in few lengths, so a map look-up per length is enough.
type ranges[V any] struct {
	values map[netip.Prefix]V
	// lengths are those in use, descending, of IPv4 and IPv6.
	lengths [2][]int
	used    [2][129]int
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// lookup returns the value of the longest prefix that holds the address.
func (r *ranges[V]) lookup(a netip.Addr) (value V, ok bool) {
	for _, bits := range r.lengths[family(a)] {
		prefix, err := a.Prefix(bits)
		if err != nil {
			break // the zero address
		}
		if value, ok = r.values[prefix]; ok {
			return value, true
		}
	}
	return value, false
}

// set adds a prefix, which must be masked, or gives it another value.
func (r *ranges[V]) set(prefix netip.Prefix, value V) {
	if r.values == nil {
		r.values = make(map[netip.Prefix]V)
	}
	if _, ok := r.values[prefix]; !ok {
		r.count(prefix, 1)
	}
	r.values[prefix] = value
}

// remove takes a prefix away.
func (r *ranges[V]) remove(prefix netip.Prefix) {
	if _, ok := r.values[prefix]; ok {
		delete(r.values, prefix)
		r.count(prefix, -1)
	}
}

func (r *ranges[V]) count(prefix netip.Prefix, by int) {
	f := family(prefix.Addr())
	r.used[f][prefix.Bits()] += by
	r.lengths[f] = r.lengths[f][:0]
	for bits, n := range slices.Backward(r.used[f][:]) {
		if n > 0 {
			r.lengths[f] = append(r.lengths[f], bits)
		}
	}
}
