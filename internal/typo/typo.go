// SPDX-License-Identifier: Apache-2.0

// Package typo measures how far apart two words are, for hints at what somebody meant.
// It is pure. It costs the product of both lengths: the caller bounds them.
package typo

// Distance is Levenshtein's, in bytes, one row at a time.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
