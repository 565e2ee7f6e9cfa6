// SPDX-License-Identifier: Apache-2.0

// Package ktest is what the kernel tests of several packages share: the gate
// that keeps them from an unprivileged user, network namespaces of their own,
// and packets to send. It is imported by tests alone.
package ktest

import (
	"os"
	"testing"

	"github.com/cilium/ebpf/rlimit"
)

// RequireEnv is the environment variable under which a kernel test that cannot
// run fails instead of being skipped. CI sets it to 1.
const RequireEnv = "REQUIRE_KERNEL"

// Privileged skips the test, with a reason, unless it runs as root. Under
// REQUIRE_KERNEL=1 it fails it instead, so that CI cannot pass without the
// kernel tests.
func Privileged(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		if err := rlimit.RemoveMemlock(); err != nil {
			tb.Fatalf("remove memlock limit: %v", err)
		}
		return
	}
	if os.Getenv(RequireEnv) == "1" {
		tb.Fatalf("kernel test needs root, and %s=1 forbids to skip it", RequireEnv)
	}
	tb.Skip("kernel test: needs root (loads BPF programs, makes network namespaces)")
}
