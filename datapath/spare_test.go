// SPDX-License-Identifier: Apache-2.0

package datapath

import "testing"

func TestSpareBuffersShrink(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		length, capacity int
		kept             bool
	}{{0, spareLeast, true}, {0, spareLeast + 1, false}, {2047, 8192, false}, {2048, 8192, true}, {8192, 8192, true}} {
		got := spare(make([]int, test.length, test.capacity))
		if len(got) != 0 || (cap(got) == test.capacity) != test.kept {
			t.Errorf("%d of %d: got %d of %d, want it empty, and kept: %t", test.length, test.capacity, len(got), cap(got), test.kept)
		}
	}
}
