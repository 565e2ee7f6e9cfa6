// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"
)

// Who has no way to a registry reads in DEPLOY.md which images the overlays pull, and how
// to come by them.
func TestImagesOfOthersAreNamed(t *testing.T) {
	content, err := os.ReadFile("../../docs/DEPLOY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(content), "\n## Images\n")
	section, _, _ = strings.Cut(section, "\n## ")
	found := 0
	for _, overlay := range []string{"prometheus", "stack", "compatibility", "podmonitor"} {
		for id, pod := range pods(t, kustomize(t, "overlays/"+overlay)) {
			for _, container := range append(pod.InitContainers, pod.Containers...) {
				if strings.HasPrefix(container.Image, "ghcr.io/podmeter/podmeter:") {
					continue
				}
				found++
				line := lineWith(section, "`"+container.Image+"`")
				if !strings.Contains(line, "`"+overlay+"`") {
					t.Errorf("%s of %s: got %q of %s, want a line that names both", id, overlay, line, container.Image)
				}
			}
		}
	}
	if found == 0 {
		t.Error("got no image of others, want Prometheus' at least")
	}
}

// lineWith returns the line of a text that contains something, empty if there is none.
func lineWith(text, something string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, something) {
			return line
		}
	}
	return ""
}
