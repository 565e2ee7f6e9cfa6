// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// In a container the directory of pins is one of the host's that is mounted below a
// read-only root: it stays when nothing is in it any more, and that is no error.
func TestUninstallOfAMountedDirectory(t *testing.T) {
	t.Parallel()
	for _, attach := range []string{"auto", "netlink"} {
		t.Run(attach, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if err := os.Mkdir(h.pins, 0o700); err != nil {
				t.Fatal(err)
			}
			var keep []int
			for _, number := range needed() {
				keep = append(keep, number)
			}
			container := []string{sandbox(keep, h.pins, h.dir)}
			p := start(t, h.node, container, h.flags("--attach", attach)...)
			h.awaitAttached(t, p)
			p.terminate(t)
			p = start(t, h.node, container, "uninstall", "--pin-path", h.pins, "--state-dir", filepath.Join(h.dir, "state"))
			if code := p.end(t); code != 0 {
				t.Errorf("uninstall: got exit code %d, want 0; it said:\n%s", code, &p.output)
			}
			if left, err := os.ReadDir(h.pins); err != nil || len(left) > 0 {
				t.Errorf("pins: got %v, %v, want none", left, err)
			}
			if _, err := os.Stat(filepath.Join(h.dir, "state")); !os.IsNotExist(err) {
				t.Errorf("state: got %v, want none", err)
			}
		})
	}
}
