// SPDX-License-Identifier: Apache-2.0

package datapath

import "testing"

func TestSpareBuffersShrink(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		used, capacity int
		kept           bool
	}{{0, spareLeast, true}, {0, spareLeast + 1, false}, {2047, 8192, false}, {2048, 8192, true}, {8192, 8192, true}} {
		got := spare(make([]int, 1, test.capacity), test.used)
		if len(got) != 0 || (cap(got) == test.capacity) != test.kept {
			t.Errorf("%d of %d: got %d of %d, want it empty, and kept: %t", test.used, test.capacity, len(got), cap(got), test.kept)
		}
	}
}
