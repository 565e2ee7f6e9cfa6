// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"text/template"
)

// plotEnv is a file for a plot of what a packet takes by the number of flows in turns, as SVG.
const plotEnv = "PODMETER_BENCH_PLOT"

// measured is what was measured with so many flows in turns.
type measured struct {
	flows int
	costs costs
}

// The plot's sizes in pixels, and its colours by contender.
const (
	plotWidth, plotHeight = 640, 320
	plotLeft, plotTop     = 56, 34
	plotRight, plotBottom = 520, 270
)

var plotColours = []struct{ name, label, colour string }{
	{this, "podmeter", "#0969da"}, {first, "before the front", "#8250df"}, {usual, "a usual meter", "#bf8700"}, {peer, "PEER", "#57606a"},
}

// packetSVG has nothing in it but numbers and words of ours, so that text/template is safe.
const packetSVG = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" width="{{.Width}}" height="{{.Height}}"
 font-family="sans-serif" font-size="12" fill="#24292f">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{{.Left}}" y="20" font-weight="bold">ns a packet above an empty program, by the number of flows in turns</text>
{{- range .Grid}}
<line x1="{{$.Left}}" x2="{{$.Right}}" y1="{{.At}}" y2="{{.At}}" stroke="#d0d7de"/>
<text x="{{$.Before}}" y="{{.At}}" dy="4" text-anchor="end">{{.Text}}</text>
{{- end}}
{{- range .Columns}}
<text x="{{.At}}" y="{{$.Below}}" text-anchor="middle">{{.Text}}</text>
{{- end}}
{{- range .Lines}}
<polyline fill="none" stroke="{{.Colour}}" stroke-width="2" points="{{.Points}}"/>
<text x="{{$.After}}" y="{{.End}}" dy="4" fill="{{.Colour}}">{{.Label}}</text>
{{- end}}
</svg>
`

// plotPackets draws a line for each contender that was measured.
func plotPackets(all []measured) ([]byte, error) {
	type mark struct{ At, Text string }
	type line struct{ Colour, Label, Points, End string }
	var grid, columns []mark
	var lines []line
	most := 1.0
	for _, m := range all {
		for _, c := range plotColours {
			if _, has := m.costs.best[c.name]; has {
				most = max(most, float64(m.costs.above(c.name)))
			}
		}
	}
	most = math.Ceil(most/25) * 25
	last := math.Log10(float64(all[len(all)-1].flows))
	x := func(flows int) float64 { return plotLeft + (plotRight-plotLeft)*math.Log10(float64(flows))/last }
	y := func(ns float64) float64 { return plotBottom - (plotBottom-plotTop)*ns/most }
	for ns := 0.0; ns <= most; ns += 25 {
		grid = append(grid, mark{fmt.Sprintf("%.1f", y(ns)), fmt.Sprintf("%.0f", ns)})
	}
	for _, m := range all {
		columns = append(columns, mark{fmt.Sprintf("%.1f", x(m.flows)), fmt.Sprint(m.flows)})
	}
	for _, c := range plotColours {
		var points []string
		end := ""
		for _, m := range all {
			if _, has := m.costs.best[c.name]; has {
				end = fmt.Sprintf("%.1f", y(float64(m.costs.above(c.name))))
				points = append(points, fmt.Sprintf("%.1f,%s", x(m.flows), end))
			}
		}
		if points != nil {
			lines = append(lines, line{c.colour, c.label, strings.Join(points, " "), end})
		}
	}
	var out bytes.Buffer
	err := template.Must(template.New("packets").Parse(packetSVG)).Execute(&out, map[string]any{
		"Width": plotWidth, "Height": plotHeight, "Left": plotLeft, "Right": plotRight, "Before": plotLeft - 6, "After": plotRight + 8,
		"Below": plotBottom + 18, "Grid": grid, "Columns": columns, "Lines": lines,
	})
	return out.Bytes(), err
}

// plot writes the plot if it was asked for.
func plot(b *testing.B, all []measured) {
	b.Helper()
	file := os.Getenv(plotEnv)
	if file == "" || len(all) == 0 {
		return
	}
	content, err := plotPackets(all)
	if err == nil {
		err = os.WriteFile(file, content, 0o644)
	}
	if err != nil {
		b.Fatalf("write plot: %v", err)
	}
}
