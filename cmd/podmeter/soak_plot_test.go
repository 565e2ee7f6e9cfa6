// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/template"
	"time"
)

// The plot's sizes in pixels: panels of a title and a frame, two columns of them.
const (
	panelWidth, panelHeight = 440, 170
	frameLeft, frameTop     = 58, 30
	frameWidth, frameHeight = 366, 104
	// plotPoints is how many points a line has at most.
	plotPoints = 720
)

// soakPanel is one quantity over the time of the soak.
type soakPanel struct {
	X, Y        int // of its corner
	Title       string
	Most        string // at the top of the scale, which begins at 0
	Points      string
	Restarts    []float64 // where agents ended
	Left, Right string    // of the time
}

// soakSVG has nothing in it but numbers and titles of ours, so that text/template
// is safe.
const soakSVG = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" width="{{.Width}}" height="{{.Height}}"
 font-family="sans-serif" font-size="12" fill="#24292f">
<rect width="100%" height="100%" fill="#ffffff"/>
{{- range .Panels}}
<g transform="translate({{.X}} {{.Y}})">
<text x="{{$.L}}" y="20" font-weight="bold">{{.Title}}</text>
<rect x="{{$.L}}" y="{{$.T}}" width="{{$.W}}" height="{{$.H}}" fill="none" stroke="#d0d7de"/>
{{- range .Restarts}}
<line x1="{{printf "%.1f" .}}" x2="{{printf "%.1f" .}}" y1="{{$.T}}" y2="{{$.B}}" stroke="#d1242f" stroke-opacity="0.35"/>
{{- end}}
<polyline fill="none" stroke="#0969da" stroke-width="1.3" points="{{.Points}}"/>
<text x="{{$.BeforeL}}" y="40" text-anchor="end">{{.Most}}</text>
<text x="{{$.BeforeL}}" y="{{$.B}}" text-anchor="end">0</text>
<text x="{{$.L}}" y="{{$.Below}}">{{.Left}}</text>
<text x="{{$.R}}" y="{{$.Below}}" text-anchor="end">{{.Right}}</text>
</g>
{{- end}}
</svg>
`

// plotSoak draws all quantities; red lines are where an agent ended.
func plotSoak(samples []soakSample) ([]byte, error) {
	quantities := append(soakQuantities(),
		soakQuantity{name: "attached interfaces", of: func(s soakSample) float64 { return float64(s.attached) }},
		soakQuantity{name: "bytes of conservation error, lost or in no flow", of: func(s soakSample) float64 { return s.wrong }})
	var panels []soakPanel
	for n, q := range quantities {
		panel := drawPanel(samples, q)
		panel.X, panel.Y = n%2*panelWidth, n/2*panelHeight
		panels = append(panels, panel)
	}
	var out bytes.Buffer
	err := template.Must(template.New("soak").Parse(soakSVG)).Execute(&out, map[string]any{
		"Panels": panels, "Width": 2 * panelWidth, "Height": (len(panels) + 1) / 2 * panelHeight,
		"L": frameLeft, "T": frameTop, "W": frameWidth, "H": frameHeight,
		"R": frameLeft + frameWidth, "B": frameTop + frameHeight, "BeforeL": frameLeft - 6, "Below": frameTop + frameHeight + 16,
	})
	return out.Bytes(), err
}

func drawPanel(samples []soakSample, q soakQuantity) soakPanel {
	var most float64
	for _, s := range samples {
		most = max(most, q.of(s))
	}
	last := samples[len(samples)-1].at
	x := func(at time.Duration) float64 { return frameLeft + frameWidth*at.Seconds()/last.Seconds() }
	p := soakPanel{Title: q.name, Most: fmt.Sprintf("%.0f", most), Left: "0", Right: last.Round(time.Second).String()}
	var points strings.Builder
	step := 1 + len(samples)/plotPoints
	for n, s := range samples {
		if n > 0 && s.life != samples[n-1].life {
			p.Restarts = append(p.Restarts, x(s.at))
		}
		if n%step == 0 {
			fmt.Fprintf(&points, "%.1f,%.1f ", x(s.at), frameTop+frameHeight*(1-q.of(s)/max(most, 1)))
		}
	}
	p.Points = strings.TrimSpace(points.String())
	return p
}

// plot writes the plot if it was asked for, also when the soak failed.
func (s *soak) plot(t *testing.T) {
	file := os.Getenv(soakPlot)
	if file == "" || len(s.watch.samples) == 0 {
		return
	}
	plot, err := plotSoak(s.watch.samples)
	if err == nil {
		err = os.WriteFile(file, plot, 0o644)
	}
	if err != nil {
		t.Errorf("write plot: %v", err)
	}
}
