// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"

	"github.com/spf13/pflag"
)

// closest returns the name that one which does not exist is likely to be meant for:
// but for case and separators the same, or with two letters at most that differ. It is
// empty if there is none.
func closest(unknown string, names []string) string {
	best, least := "", 3
	for _, name := range names {
		differ := distance(spelled(unknown), spelled(name))
		if differ < least && differ*3 <= len(name) {
			best, least = name, differ
		}
	}
	return best
}

// spelled leaves of a name what its spelling does not change: logLevel and LOG_LEVEL are
// log-level.
func spelled(name string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "", " ", "").Replace(name))
}

// distance is Levenshtein's: how many bytes are to be put in, taken out or changed to
// make one text of another.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for i := range row {
		row[i] = i
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func flagNames(fs *pflag.FlagSet) (names []string) {
	fs.VisitAll(func(flag *pflag.Flag) { names = append(names, flag.Name) })
	return names
}
