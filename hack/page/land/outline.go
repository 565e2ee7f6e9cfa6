// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

const (
	// north and south bound the map: Antarctica would take a quarter of it.
	north, south = 84, -56
	// perDegree is how many units of the path a degree has.
	perDegree = 10
	// tolerance is how far in degrees a simplified line may lie from the true one, less than a
	// pixel of a map that is 1,200 wide; smallest is the area, in square
	// degrees, of the smallest island that is drawn.
	tolerance, smallest = 0.2, 0.2
)

// outline is the rings as a path of SVG: equirectangular, a tenth of a degree a unit,
// with 180° W, north at its upper left corner.
func outline(rings [][]point) string {
	var path strings.Builder
	for _, ring := range rings {
		if highest(ring) < south || area(unwrap(ring)) < smallest {
			continue
		}
		ring = simplify(unwrap(ring))
		for turns := range 3 { // what lies beyond an edge is at the other as well
			if turned := turn(ring, float64(turns-1)*360); visible(turned) {
				write(&path, turned)
			}
		}
	}
	return path.String()
}

// unwrap makes a ring that crosses 180° E go on beyond it.
func unwrap(ring []point) []point {
	whole := append([]point(nil), ring...)
	for i := 1; i < len(whole); i++ {
		whole[i][0] -= 360 * math.Round((whole[i][0]-whole[i-1][0])/360)
	}
	return whole
}

func turn(ring []point, degrees float64) []point {
	turned := make([]point, len(ring))
	for i, p := range ring {
		turned[i] = point{p[0] + degrees, p[1]}
	}
	return turned
}

func visible(ring []point) bool {
	return slices.ContainsFunc(ring, func(p point) bool { return p[0] > -180 && p[0] < 180 })
}

func highest(ring []point) float64 {
	top := -math.MaxFloat64
	for _, p := range ring {
		top = max(top, p[1])
	}
	return top
}

// area is that of a closed ring, by the shoelace formula.
func area(ring []point) float64 {
	var sum float64
	for i, p := range ring {
		q := ring[(i+1)%len(ring)]
		sum += p[0]*q[1] - q[0]*p[1]
	}
	return math.Abs(sum) / 2
}

// simplify keeps the points that the algorithm of Ramer, Douglas and Peucker keeps. A
// closed ring is cut where it is farthest from its first point.
func simplify(ring []point) []point {
	far := 0
	for i, p := range ring {
		if distance(p, ring[0]) > distance(ring[far], ring[0]) {
			far = i
		}
	}
	kept := append(straighten(ring[:far+1]), straighten(ring[far:])...)
	return kept
}

// straighten returns the points of a line that are kept, but for its last.
func straighten(line []point) []point {
	if len(line) < 2 {
		return nil
	}
	first, last := line[0], line[len(line)-1]
	far, most := 0, 0.0
	for i := 1; i < len(line)-1; i++ {
		if d := offset(line[i], first, last); d > most {
			far, most = i, d
		}
	}
	if most <= tolerance {
		return []point{first}
	}
	return append(straighten(line[:far+1]), straighten(line[far:])...)
}

func distance(a, b point) float64 { return math.Hypot(a[0]-b[0], a[1]-b[1]) }

// offset is the distance of a point from the segment between two others.
func offset(p, a, b point) float64 {
	length := distance(a, b)
	if length == 0 {
		return distance(p, a)
	}
	along := ((p[0]-a[0])*(b[0]-a[0]) + (p[1]-a[1])*(b[1]-a[1])) / (length * length)
	along = max(0, min(1, along))
	return distance(p, point{a[0] + along*(b[0]-a[0]), a[1] + along*(b[1]-a[1])})
}

// write appends a ring as relative steps, which are shorter than places.
func write(path *strings.Builder, ring []point) {
	var x, y int
	for i, p := range ring {
		toX := int(math.Round((p[0] + 180) * perDegree))
		toY := int(math.Round((north - max(p[1], south)) * perDegree))
		switch {
		case i == 0:
			fmt.Fprintf(path, "M%d %dl", toX, toY)
		case toX == x && toY == y:
			continue
		default:
			fmt.Fprintf(path, "%s%s", number(toX-x, i == 1), number(toY-y, false))
		}
		x, y = toX, toY
	}
	path.WriteString("z")
}

// number needs a space before it unless its sign tells where it begins.
func number(n int, first bool) string {
	if first || n < 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprint(" ", n)
}
