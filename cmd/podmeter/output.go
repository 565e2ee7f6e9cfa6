// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/spf13/cobra"
)

// The values of --output.
const (
	outputTable = "table"
	outputText  = "text"
	outputJSON  = "json"
)

// addOutputFlag adds --output, whose values are the formats, the first by default.
func addOutputFlag(command *cobra.Command, output *string, formats ...string) {
	command.Flags().StringVarP(output, "output", "o", formats[0], "`format`: "+orList(formats))
	complete(command, "output", formats...)
}

func checkOutput(output string, formats ...string) error {
	if slices.Contains(formats, output) {
		return nil
	}
	return agent.Usage(agent.NewFault("output", strconv.Quote(output), "%s is expected", orList(formats)))
}

// orList lists choices for a sentence: "table, text or json".
func orList(choices []string) string {
	last := len(choices) - 1
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
