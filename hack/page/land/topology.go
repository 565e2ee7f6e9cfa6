// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
)

// topology is what is used of a TopoJSON file
// (https://github.com/topojson/topojson-specification).
type topology struct {
	Transform struct{ Scale, Translate [2]float64 }
	// Arcs are lines of steps: each point is relative to the one before it.
	Arcs    [][][2]float64
	Objects map[string]geometry
}

// geometry is a MultiPolygon, or a collection of such.
type geometry struct {
	Type       string
	Geometries []geometry
	// Arcs are polygons of rings of numbers of arcs; ^n is arc n backwards.
	Arcs [][][]int
}

// point is a longitude and a latitude in degrees.
type point [2]float64

// readRings returns the rings of the file's land, in degrees.
func readRings(content []byte) ([][]point, error) {
	var t topology
	if err := json.Unmarshal(content, &t); err != nil {
		return nil, fmt.Errorf("read TopoJSON: %w", err)
	}
	land, ok := t.Objects["land"]
	if !ok {
		return nil, fmt.Errorf("read TopoJSON: it has no object land")
	}
	var rings [][]point
	for _, g := range append(land.Geometries, land) {
		for _, polygon := range g.Arcs {
			for _, ring := range polygon {
				rings = append(rings, t.ring(ring))
			}
		}
	}
	return rings, nil
}

// ring joins arcs, of which each begins where the one before it ends.
func (t *topology) ring(numbers []int) (ring []point) {
	for _, n := range numbers {
		line := t.arc(n)
		if len(ring) > 0 {
			line = line[1:]
		}
		ring = append(ring, line...)
	}
	return ring
}

func (t *topology) arc(n int) []point {
	backwards := n < 0
	if backwards {
		n = ^n
	}
	line := make([]point, len(t.Arcs[n]))
	var at point
	for i, step := range t.Arcs[n] {
		for axis := range at {
			at[axis] += step[axis]
		}
		to := i
		if backwards {
			to = len(line) - 1 - i
		}
		for axis := range at {
			line[to][axis] = at[axis]*t.Transform.Scale[axis] + t.Transform.Translate[axis]
		}
	}
	return line
}
