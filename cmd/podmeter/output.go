// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/spf13/cobra"
)

// The values of --output.
const (
	outputText = "text"
	outputJSON = "json"
)

func addOutputFlag(command *cobra.Command, output *string) {
	command.Flags().StringVarP(output, "output", "o", outputText, "`format`: text or json")
	complete(command, "output", outputText, outputJSON)
}

func checkOutput(output string) error {
	if output == outputText || output == outputJSON {
		return nil
	}
	return agent.Usage(fmt.Errorf("--output %q: text or json is expected", output))
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
