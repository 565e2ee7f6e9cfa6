// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"os/exec"
	"testing"
)

// The limit kills who takes more, and that is counted; who takes less is charged.
func TestMemoryCgroup(t *testing.T) {
	c := NewMemoryCgroup(t, 32<<20)
	run := func(bytes string) error {
		// dd holds a block of that size.
		command := c.Command("/bin/dd", "if=/dev/zero", "of=/dev/null", "count=1", "bs="+bytes)
		return exec.Command(command[0], command[1:]...).Run()
	}
	for _, test := range []struct {
		bytes  string
		killed uint64
	}{{"4M", 0}, {"256M", 1}} {
		err := run(test.bytes)
		killed, countErr := c.Killed()
		if (err != nil) != (test.killed > 0) || countErr != nil || killed != test.killed {
			t.Errorf("%s: got %v, %d killed and %v, want %d killed", test.bytes, err, killed, countErr, test.killed)
		}
	}
	if used, err := c.Used(); err != nil || used > 32<<20 {
		t.Errorf("got %d bytes used, %v", used, err)
	}
}
