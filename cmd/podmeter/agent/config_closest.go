// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"

	"github.com/podmeter/podmeter/internal/typo"
	"github.com/spf13/pflag"
)

// closest returns the name that one which does not exist is likely to be meant for:
// but for case and separators the same, or with two letters at most that differ. It is
// empty if there is none.
func closest(unknown string, names []string) string {
	best, least := "", 3
	for _, name := range names {
		differ := typo.Distance(spelled(unknown), spelled(name))
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

func flagNames(fs *pflag.FlagSet) (names []string) {
	fs.VisitAll(func(flag *pflag.Flag) { names = append(names, flag.Name) })
	return names
}
