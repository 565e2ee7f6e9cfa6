// SPDX-License-Identifier: Apache-2.0

// Command deploy writes the Kubernetes manifests that are made from the Helm
// chart. What it writes is committed; the tests beside it compare both as a user
// gets them.
//
// Usage: cd hack/deploy && go run . -deploy ../../deploy
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// namespace is where the manifests put podmeter.
const namespace = "podmeter"

func main() { os.Exit(run()) }

func run() int {
	deploy := flag.String("deploy", "../../deploy", "the `folder` with helm and kubernetes")
	flag.Parse()
	if err := generate(*deploy); err != nil {
		fmt.Fprintln(os.Stderr, "deploy:", err)
		return 1
	}
	return 0
}

// targets are the files that are made, below the folder kubernetes, by the
// template that each is made from.
func targets() map[string]string {
	return map[string]string{
		"daemonset.yaml":  "base/daemonset.yaml",
		"namespace.yaml":  "base/namespace.yaml",
		"rbac.yaml":       "base/rbac.yaml",
		"podmonitor.yaml": "overlays/podmonitor/podmonitor.yaml",
	}
}

// generate renders the chart as the manifests have it and writes them.
func generate(deploy string) error {
	rendered, err := render(filepath.Join(deploy, "helm", "podmeter"), manifestValues())
	if err != nil {
		return err
	}
	var errs []error
	for template, target := range targets() {
		path := filepath.Join(deploy, "kubernetes", target)
		content := note + withoutHelm(rendered[template])
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
	}
	return errors.Join(errs...)
}

// note begins every file that is made.
const note = "# Made from deploy/helm/podmeter by make generate: change it there.\n"

// manifestValues are the values that the manifests have other than the chart.
func manifestValues() map[string]any {
	return map[string]any{
		"namespace":  map[string]any{"create": true},
		"podMonitor": map[string]any{"enabled": true},
	}
}
