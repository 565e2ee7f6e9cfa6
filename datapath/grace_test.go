// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"os"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
)

// expectGrace is the environment variable by which who boots a kernel with
// nohz_full makes sure that it is one: "map" if the fallback is expected.
const expectGrace = "PODMETER_EXPECT_GRACE"

// With nohz_full, and only then, the fallback is what runs: the kernel's only
// other reason to refuse membarrier(2) is to have been built without it.
func TestGraceIsWhatTheKernelOffers(t *testing.T) {
	t.Parallel()
	ktest.Privileged(t)
	g, err := newGrace()
	if err != nil {
		t.Fatalf("make grace: %v", err)
	}
	defer g.close()
	want := len(nohzFull(t)) > 0
	if os.Getenv(expectGrace) == "map" && !want {
		t.Errorf("nohz_full CPUs: got none, and %s=map expects some", expectGrace)
	}
	if got := g.outer != nil; got != want {
		t.Errorf("fallback: got %t, want %t", got, want)
	}
}

// nohzFull returns the list of the CPUs that run without ticks, empty for none.
func nohzFull(t *testing.T) string {
	t.Helper()
	list, err := os.ReadFile("/sys/devices/system/cpu/nohz_full")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Trim(string(list), " (nul)\n")
}
