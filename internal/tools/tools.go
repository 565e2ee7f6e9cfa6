// SPDX-License-Identifier: Apache-2.0

// Package tools finds for tests what `make tools` has built: Kubernetes and the Prometheus of
// the manifests. Nothing is built here, as that takes minutes.
package tools

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const script = "hack/tools.sh"

// Find returns the folder with the commands of a tool, "kubernetes" or "prometheus". Its error
// says that it is not built, and what to do.
func Find(name string) (string, error) {
	path, err := findScript()
	if err != nil {
		return "", err
	}
	find := exec.Command(path, "find", name)
	var said strings.Builder
	find.Stderr = &said
	folder, err := find.Output()
	if said.Len() > 0 && err != nil {
		err = errors.New(strings.TrimSpace(said.String()))
	}
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return strings.TrimSpace(string(folder)), nil
}

// findScript looks for it from the working directory up, which is a test's package.
func findScript() (string, error) {
	folder, err := os.Getwd()
	for err == nil {
		path := filepath.Join(folder, script)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if folder == filepath.Dir(folder) {
			return "", errors.New("run make tools in the repository: " + script + " is not above the working directory")
		}
		folder = filepath.Dir(folder)
	}
	return "", err
}
