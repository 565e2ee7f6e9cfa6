// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// A square of two arcs, of which the second is written backwards, and one too small to be
// drawn.
const square = `{"type": "Topology", "transform": {"scale": [0.5, 0.5], "translate": [10, 20]},
	"arcs": [[[0, 0], [20, 0], [0, 20]], [[0, 0], [0, 20], [20, 0]], [[100, 0], [0, 1], [1, 0], [-1, -1]]],
	"objects": {"land": {"type": "GeometryCollection", "geometries": [{"type": "MultiPolygon", "arcs": [[[0, -2]], [[2]]]}]}}}`

func TestRings(t *testing.T) {
	rings, err := readRings([]byte(square))
	if err != nil {
		t.Fatal(err)
	}
	want := []point{{10, 20}, {20, 20}, {20, 30}, {10, 30}, {10, 20}}
	if len(rings) != 2 || !slices.Equal(rings[0], want) {
		t.Errorf("got %v, want %v and another", rings, want)
	}
	// From 10° E, 20° N: a tenth of a degree a unit, 180° W and 84° N at 0, 0.
	if got, want := outline(rings), "M1900 640l100 0 0-100-100 0z"; got != want {
		t.Errorf("outline: got %s, want %s", got, want)
	}
	if _, err := readRings([]byte(`{"objects": {}}`)); err == nil {
		t.Error("a file without land: got no error")
	}
}

// What crosses 180° is drawn at both edges, and no line goes across the map.
func TestAntimeridian(t *testing.T) {
	got := outline([][]point{{{170, 0}, {-170, 0}, {-170, 10}, {170, 10}, {170, 0}}})
	if want := "M-100 840l200 0 0-100-200 0zM3500 840l200 0 0-100-200 0z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The committed file is of this generator's kind: nothing in it but its own steps.
func TestCommitted(t *testing.T) {
	content, err := os.ReadFile("../../../cmd/podmeter/agent/page/assets/land.js")
	if err != nil {
		t.Fatal(err)
	}
	_, path, _ := strings.Cut(string(content), `outline = "`)
	path, _, _ = strings.Cut(path, `"`)
	if len(path) < 10_000 || strings.Trim(path, "MLlz0123456789- ") != "" {
		t.Errorf("got %d bytes of an outline, want some 30,000 of its steps alone", len(path))
	}
}
