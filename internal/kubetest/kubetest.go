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
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/tools"
)

const (
	// CommandsEnv is the environment variable that names another folder of
	// kube-apiserver than the one of `make tools`.
	CommandsEnv = "PODMETER_KUBE_BIN"
	// RequireEnv is the environment variable under which a test that lacks the
	// API server or etcd fails instead of being skipped. CI sets it to 1.
	RequireEnv = "REQUIRE_KUBE"
)

// Start starts an API server that lives as long as the test, which is skipped
// where there is none to start, and under -short.
func Start(tb testing.TB) *Server {
	tb.Helper()
	effort.Long(tb, "starts etcd and an API server")
	commands, err := commands()
	if err != nil {
		if os.Getenv(RequireEnv) == "1" {
			tb.Fatalf("%s=1, and no API server: %v", RequireEnv, err)
		}
		tb.Skip("needs an API server: ", err)
	}
	s, err := New(tb.Context(), Options{Commands: commands, Folder: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// commands returns the folder of kube-apiserver, if etcd is there as well.
func commands() (string, error) {
	if _, err := exec.LookPath("etcd"); err != nil {
		return "", errors.New("etcd is not installed (package etcd-server)")
	}
	if folder := os.Getenv(CommandsEnv); folder != "" {
		return folder, nil
	}
	return tools.Find("kubernetes")
}
