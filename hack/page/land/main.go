// SPDX-License-Identifier: Apache-2.0

// Command land makes the outline of the world that the agent's page draws, of a
// TopoJSON file of the npm package world-atlas: Natural Earth's land, which is in the
// public domain. hack/page/land.sh fetches it.
package main

import (
	"fmt"
	"os"
)

const header = `// SPDX-License-Identifier: Apache-2.0
// Made by hack/page/land.sh; do not edit. The data is Natural Earth's (naturalearthdata.com), in the
// public domain, by way of the npm package %s (ISC).

// The box of the outline: tenths of a degree, 180° W and the northern edge at 0, 0.
export const north = %d, width = %d, height = %d;

export const outline = "%s";
`

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: land FILE PACKAGE > land.js")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "land:", err)
		os.Exit(1)
	}
}

func run(file, source string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read outline of the world: %w", err)
	}
	rings, err := readRings(content)
	if err != nil {
		return err
	}
	_, err = fmt.Printf(header, source, north, 360*perDegree, (north-south)*perDegree, outline(rings))
	return err
}
