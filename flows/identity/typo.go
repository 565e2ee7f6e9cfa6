// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"maps"
	"slices"

	"github.com/podmeter/podmeter/internal/typo"
)

// A hint costs by the length of the word and the number of those known: longer words and
// more of them get none.
const (
	maxTypo  = 253
	maxKnown = 1000
)

// didYouMean returns a hint at the known word that is nearest to one that is
// not known, empty if none is near.
func didYouMean[V any](word string, known map[string]V) string {
	if len(word) > maxTypo || len(known) > maxKnown {
		return ""
	}
	best, distance := "", 3
	for _, candidate := range slices.Sorted(maps.Keys(known)) {
		if d := typo.Distance(word, candidate); d < distance && d < len(candidate) {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
