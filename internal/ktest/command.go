// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"os"
	"os/exec"
	"testing"
)

// Command skips the test, with a reason, where a command is not installed that a Debian
// package has. Under REQUIRE_KERNEL=1 it fails it instead.
func Command(tb testing.TB, name, debianPackage string) {
	tb.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	reason := "needs " + name + " (package " + debianPackage + ")"
	if os.Getenv(RequireEnv) == "1" {
		tb.Fatal(reason + ", and " + RequireEnv + "=1 forbids to skip it")
	}
	tb.Skip(reason)
}
