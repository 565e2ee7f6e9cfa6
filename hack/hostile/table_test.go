// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const tableFile = "../../docs/RELIABILITY.md"

// words are what the table says of a share of scrapes.
var words = map[float64]string{0: "none", 0.1: "a tenth", 0.5: "half", 0.75: "three quarters", 1: "all"}

// The table has each attack, with the scrapes that may be missed, and no other.
func TestTableHasEachAttack(t *testing.T) {
	rows := make(map[string]string)
	for _, line := range section(t) {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) == 4 && strings.HasPrefix(cells[2], "`TestHostile`") {
			rows[cells[0]] = cells[3]
		}
	}
	for _, a := range slices.Concat(plainAttacks(), tlsAttacks(), clusterAttacks(nil, nil), processAttacks()) {
		if got := rows[a.name]; got != words[a.missed] || got == "" {
			t.Errorf("%s: the table has %q of the scrapes, want %q", a.name, got, words[a.missed])
		}
		delete(rows, a.name)
	}
	for name := range rows {
		t.Errorf("%s: is in the table and is no attack", name)
	}
}

// The tests that the section names exist.
func TestTableNamesTests(t *testing.T) {
	var all strings.Builder
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".." && path != "../.." {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(strings.Join(section(t), "\n"), -1)
	if len(named) < 100 {
		t.Errorf("got %d tests named, want those of each attack", len(named))
	}
	for _, name := range named {
		if !strings.Contains(all.String(), "\nfunc "+name[1]+"(") {
			t.Errorf("%s is named and does not exist", name[1])
		}
	}
}

// section is the one of the documentation that has the table, by lines.
func section(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "\n## Hostile input\n")
	within, _, ends := strings.Cut(after, "\n## ")
	if !found || !ends {
		t.Fatal("the section is not there")
	}
	return strings.Split(within, "\n")
}
