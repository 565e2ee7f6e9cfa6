// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
)

// The blocks of colours of page.css, in its order.
var blocks = []string{"light", "dark, as the reader prefers", "dark, as chosen"}

// All text can be read in either theme: WCAG 2.2 wants a contrast of 4.5 to 1, and of 3 for
// what is not text.
func TestContrast(t *testing.T) {
	css := string(files()["/page/page.css"].(*file).content)
	found := regexp.MustCompile(`(?s)\{\s*color-scheme:.*?\}`).FindAllString(css, -1)
	if len(found) != len(blocks) {
		t.Fatalf("got %d blocks of colours, want %d", len(found), len(blocks))
	}
	if strings.Join(strings.Fields(found[1]), "") != strings.Join(strings.Fields(found[2]), "") {
		t.Error("the two dark blocks differ")
	}
	for i, block := range found {
		colours := make(map[string]float64)
		for _, m := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{3,6});`).FindAllStringSubmatch(block, -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		for _, c := range []struct {
			front, back string
			least       float64
		}{
			{"ink", "card", 4.5}, {"ink", "ground", 4.5}, {"muted", "card", 4.5}, {"muted", "ground", 4.5}, {"ink", "faint", 4.5}, {"ink", "sea", 4.5},
			{"good", "good-ground", 4.5}, {"bad", "bad-ground", 4.5}, {"good", "card", 4.5}, {"bad", "card", 4.5}, {"card", "good", 4.5}, {"card", "bad", 4.5},
			{"waits", "waits-ground", 4.5}, {"waits", "card", 4.5}, {"card", "waits", 4.5},
			{"sent", "card", 3}, {"received", "card", 3}, {"sent", "land", 3}, {"sent", "sea", 3}, {"focus", "card", 3}, {"focus", "ground", 3},
		} {
			front, ok1 := colours[c.front]
			back, ok2 := colours[c.back]
			if !ok1 || !ok2 {
				t.Fatalf("%s: no colour %s or %s", blocks[i], c.front, c.back)
			}
			if got := (max(front, back) + 0.05) / (min(front, back) + 0.05); got < c.least {
				t.Errorf("%s: %s on %s: got a contrast of %.2f, want %v", blocks[i], c.front, c.back, got, c.least)
			}
		}
	}
}

// luminance is WCAG's relative one.
func luminance(t *testing.T, hex string) (sum float64) {
	t.Helper()
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	var channels [3]int
	if _, err := fmt.Sscanf(hex, "%02x%02x%02x", &channels[0], &channels[1], &channels[2]); err != nil {
		t.Fatalf("colour %s: %v", hex, err)
	}
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		v := float64(channels[i]) / 255
		if v <= 0.04045 {
			sum += weight * v / 12.92
		} else {
			sum += weight * math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return sum
}
