// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is what is known of this binary.
type build struct {
	Version string `json:"version"`
	// Revision is the commit, with "-dirty" if there was more than it; empty if
	// the binary was built outside of a repository.
	Revision  string `json:"revision"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

// newBuild asks the linker's variable and the build information.
func newBuild() build {
	b := build{Version: version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	dirty := ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			b.Revision = setting.Value
		case setting.Key == "vcs.modified" && setting.Value == "true":
			dirty = "-dirty"
		}
	}
	if b.Revision != "" {
		b.Revision += dirty
	}
	return b
}

// String returns it as one line.
func (b build) String() string {
	revision := ""
	if b.Revision != "" {
		revision = ", revision " + b.Revision
	}
	return fmt.Sprintf("podmeter %s%s, %s, %s", b.Version, revision, b.GoVersion, b.Platform)
}

func versionCommand() *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:     "version",
		Short:   "Show the version, the commit and the Go release that made it",
		Example: "  podmeter version\n  podmeter version -o json",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := checkOutput(output, outputText, outputJSON); err != nil {
				return err
			}
			if output == outputJSON {
				return writeJSON(command.OutOrStdout(), newBuild())
			}
			_, err := fmt.Fprintln(command.OutOrStdout(), newBuild())
			return err
		},
	}
	addOutputFlag(command, &output, outputText, outputJSON)
	return command
}
