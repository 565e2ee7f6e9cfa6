// SPDX-License-Identifier: Apache-2.0

// Package kubetest runs a real Kubernetes API server and its etcd, and nothing
// else of a cluster: no controller, no scheduler, no kubelet. Objects stay as
// they were created, so that thousands of nodes and pods can be there that do
// not run.
//
// Tests take [Start]; what is no test takes [New]. Both processes listen on the
// loopback interface alone, write into one folder alone and end with the
// process that started them, however that ends.
package kubetest

import (
	"os"
	"os/exec"
	"testing"
)

const (
	// CommandsEnv is the environment variable that names the folder of
	// kube-apiserver. hack/cluster/build.sh makes and prints one.
	CommandsEnv = "PODMETER_KUBE_BIN"
	// RequireEnv is the environment variable under which a test that lacks the
	// API server or etcd fails instead of being skipped. CI sets it to 1.
	RequireEnv = "REQUIRE_KUBE"
)

// Start starts an API server that lives as long as the test, which is skipped
// where there is none to start.
func Start(tb testing.TB) *Server {
	tb.Helper()
	commands := os.Getenv(CommandsEnv)
	_, err := exec.LookPath("etcd")
	switch {
	case commands != "" && err == nil:
	case os.Getenv(RequireEnv) == "1":
		tb.Fatalf("this test needs etcd and %s, got etcd: %v, %s=%q; %s=1 forbids to skip it",
			CommandsEnv, err, CommandsEnv, commands, RequireEnv)
	default:
		tb.Skip("API server test: needs etcd, and " + CommandsEnv + "=$(hack/cluster/build.sh)")
	}
	s, err := New(tb.Context(), Options{Commands: commands, Folder: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}
