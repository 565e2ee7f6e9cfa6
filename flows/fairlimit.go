// SPDX-License-Identifier: Apache-2.0

package flows

// fairLimit is a number of places for the label sets of a family, over all pods. One
// pod has at most a quarter of them. Where all are taken each living pod still has its floor,
// an equal share: a pod that has less takes the place of a pod that has ended, or else of the
// one that has most. So no pods can keep another from its floor, in whatever number and order
// they come.
type fairLimit[L comparable] struct {
	limit, taken int
	of           func(*account) *family[L]
	// give takes over what a row has that loses its place.
	give func(*account, *row[L])
}

// admit takes a place if there is one for the account.
func (l *fairLimit[L]) admit(t *Table, a *account) bool {
	has := l.of(a).counted
	switch {
	case has >= l.limit || has >= max(1, l.limit/4):
		return false
	case l.taken < l.limit:
		l.taken++
		return true
	}
	return t.living > 0 && has < l.limit/t.living && l.free(t)
}

// free frees a place: that of the set that has been without a byte for longest, of the
// account that has most. The set is folded from then on.
func (l *fairLimit[L]) free(t *Table) bool {
	var from *account
	for _, a := range t.names {
		if l.before(a, from) {
			from = a
		}
	}
	if from == nil {
		return false
	}
	r := l.of(from).drop(t.seed)
	l.give(from, r)
	return true
}

// before reports whether an account loses a place before another does.
func (l *fairLimit[L]) before(a, b *account) bool {
	switch {
	case l.of(a).counted == 0:
		return false
	case b == nil:
		return true
	case (a.living == 0) != (b.living == 0):
		return a.living == 0
	}
	return l.of(a).counted > l.of(b).counted
}
