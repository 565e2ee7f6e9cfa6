// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"os"
	"testing"
)

// StressEnv is the environment variable that asks for the long forms of tests, if it is 1.
const StressEnv = "PODMETER_STRESS"

// Long leaves the test out under -short: it floods, kills, churns or waits, for the reason
// that is given.
func Long(tb testing.TB, why string) {
	tb.Helper()
	if testing.Short() {
		tb.Skipf("long: %s", why)
	}
}

// Stressed reports whether the long form of a test is asked for.
func Stressed() bool { return os.Getenv(StressEnv) == "1" }
