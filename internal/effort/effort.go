// SPDX-License-Identifier: Apache-2.0

// Package effort says how much of a test runs: `go test -short`, the loop for daily work,
// leaves long tests out or gives them fewer rounds, plain `go test` runs each of them in
// full, and `make stress` runs the long forms of some. It is imported by tests alone, those
// that need the kernel and those that do not.
package effort

import (
	"os"
	"testing"
)

// StressEnv is the environment variable that asks for the long forms of tests, if it is 1.
const StressEnv = "PODMETER_STRESS"

// NoRoomEnv is the environment variable that says, if it is 1, that podmeter was linked with maps
// of flows that hold one entry, as hack/stress.sh does: what misses the fronts is evicted.
const NoRoomEnv = "PODMETER_NO_ROOM"

// EmulatedEnv is the environment variable that says, if it is 1, that the processor is emulated,
// as hack/vm does it: a start of podmeter takes seconds.
const EmulatedEnv = "PODMETER_EMULATED"

// emulatedLives are two of each way in which a life can end.
const emulatedLives = 8

// Long leaves the test out under -short: it floods, kills, churns, waits, starts servers or
// moves a lot of data, for the reason that is given.
func Long(tb testing.TB, why string) {
	tb.Helper()
	if testing.Short() {
		tb.Skipf("long: %s", why)
	}
}

// Choose returns how many rounds a test has, or how large its steps are: full, or short under
// -short.
func Choose[N int | uint64](full, short N) N {
	if testing.Short() {
		return short
	}
	return full
}

// Stressed reports whether the long form of a test is asked for.
func Stressed() bool { return os.Getenv(StressEnv) == "1" }

// NoRoom reports whether flows are evicted: their bytes are then unattributed, and all else is as ever.
func NoRoom() bool { return os.Getenv(NoRoomEnv) == "1" }

// Lives returns how many agents or meters live one after the other in a test that kills them:
// so many, or fewer on an emulated processor.
func Lives(n int) int {
	if os.Getenv(EmulatedEnv) == "1" {
		return min(n, emulatedLives)
	}
	return n
}
