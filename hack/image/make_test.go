// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A node runs what its own machine built, unless more is asked for: the other
// architecture takes as long again.
func TestMakeBuildsForThisMachineAlone(t *testing.T) {
	for _, test := range []struct {
		name string
		set  []string
		want []string
	}{
		{"as the quick start", nil, []string{runtime.GOARCH}},
		{"for a registry", []string{"IMAGE_ARCHITECTURES=amd64 arm64"}, []string{"amd64", "arm64"}},
		{"for another machine", []string{"GOARCH=s390x"}, []string{"s390x"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			lines := dryRun(t, test.set)
			var built []string
			for _, match := range regexp.MustCompile(`GOOS=linux GOARCH=(\w+) `).FindAllStringSubmatch(lines, -1) {
				built = append(built, match[1])
			}
			if !slices.Equal(built, test.want) {
				t.Errorf("built for: got %q, want %q", built, test.want)
			}
			for _, architecture := range test.want {
				if packed := architecture + "=../../bin/image/podmeter-" + architecture; !strings.Contains(lines, packed) {
					t.Errorf("packed: got no %q in\n%s", packed, lines)
				}
			}
			if !strings.Contains(lines, "GOARCH= ") {
				t.Errorf("got a packer for another machine:\n%s", lines)
			}
		})
	}
}

// dryRun returns the commands of make image with variables of the environment.
func dryRun(t *testing.T, set []string) string {
	t.Helper()
	command := exec.Command("make", "--dry-run", "image")
	command.Dir = "../.."
	command.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains([]string{"IMAGE_ARCHITECTURES", "GOARCH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}, name)
	})
	command.Env = append(command.Env, set...)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("make image: %v\n%s", err, out)
	}
	return string(out)
}

func TestSummarySaysWhichNodesRunIt(t *testing.T) {
	one := []size{{architecture: "arm64", files: 53_500_000, compressed: 17_400_000}}
	two := append([]size{{architecture: "amd64", files: 57_200_000, compressed: 19_800_000}}, one...)
	for _, test := range []struct {
		sizes []size
		want  string
	}{
		{one, "image.tar: name:1, for nodes of linux/arm64 alone\n" +
			"  linux/arm64: 53.5 MB, 17.4 MB compressed, of at most 60 MB\n"},
		{two, "image.tar: name:1, for nodes of linux/amd64 and linux/arm64\n" +
			"  linux/amd64: 57.2 MB, 19.8 MB compressed, of at most 60 MB\n" +
			"  linux/arm64: 53.5 MB, 17.4 MB compressed, of at most 60 MB\n"},
	} {
		if got := summary("image.tar", options{name: "name:1", limit: defaultLimit}, test.sizes); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
