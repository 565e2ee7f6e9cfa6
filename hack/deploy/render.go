// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
)

// render returns what a chart's templates give with values that take the place of
// the chart's own, by the names of their files. Values that do not fit the schema
// are an error.
func render(chart string, values map[string]any) (map[string]string, error) {
	loaded, err := loader.Load(chart)
	if err != nil {
		return nil, fmt.Errorf("load chart %s: %w", chart, err)
	}
	release := common.ReleaseOptions{Name: "podmeter", Namespace: namespace, IsInstall: true, Revision: 1}
	all, err := util.ToRenderValues(loaded, values, release, nil)
	if err != nil {
		return nil, fmt.Errorf("check values: %w", err)
	}
	rendered, err := engine.Render(loaded, all)
	if err != nil {
		return nil, fmt.Errorf("render chart %s: %w", chart, err)
	}
	files := make(map[string]string, len(rendered))
	for name, content := range rendered {
		files[path.Base(name)] = content
	}
	return files, nil
}

// withoutHelm returns YAML without the labels that only helm gives a meaning, and
// without lines that a template left empty.
func withoutHelm(yaml string) string {
	label := regexp.MustCompile(`^ +(` + strings.Join(helmLabels(), "|") + `): `)
	var kept []string
	for line := range strings.Lines(yaml) {
		if strings.TrimSpace(line) != "" && !label.MatchString(line) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// helmLabels are the labels that tell a release from others.
func helmLabels() []string {
	return []string{"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart"}
}
