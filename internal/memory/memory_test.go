// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// Of the limits of the process's cgroups that which leaves least counts, in either hierarchy.
func TestRoom(t *testing.T) {
	for _, h := range hierarchies {
		t.Run(h.limit, func(t *testing.T) {
			mount := t.TempDir()
			root := filepath.Join(mount, h.root)
			own := h.own(root)
			if err := os.MkdirAll(own, 0o700); err != nil {
				t.Fatal(err)
			}
			stat := "anon 50\n" + h.cached[0] + " 7\n" + h.cached[1] + " 3\n"
			for _, step := range []struct {
				directory, limit string
				want             int64
			}{{root, "none yet", math.MaxInt64}, {own, "max", math.MaxInt64}, {own, "1000", 910}, {own, "50", -40}} {
				for name, content := range map[string]string{h.limit: step.limit, h.used: "100", "memory.stat": stat} {
					if err := os.WriteFile(filepath.Join(step.directory, name), []byte(content+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if got := room(mount); got != step.want {
					t.Errorf("limit %s: got %d, want %d", step.limit, got, step.want)
				}
			}
		})
	}
}
