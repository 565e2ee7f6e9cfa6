// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/podmeter/podmeter/flows"
)

func exampleView() *view {
	web := podView{
		name: podName{"shop", "web-1"}, moved: [flows.Directions]uint64{1_234_567, 89_000}, rate: 1.25e6,
		peers: []string{"shop/client", "node demo-node"}, places: []string{"São Paulo, BR", "Zürich, CH"},
	}
	job := podView{name: podName{"batch", "report-1"}, places: []string{"Nairobi, KE"}}
	return &view{elapsed: 3 * time.Second, pods: []podView{job, web}}
}

// terminal is a screen on a terminal of a size, without color.
func terminal(out *bytes.Buffer, width, height int) *screen {
	return &screen{
		out: out, duration: 10 * time.Second, hints: []string{"curl -s 127.0.0.1:9739/metrics"},
		size: func() (int, int) { return width, height },
	}
}

func TestFrame(t *testing.T) {
	const want = `podmeter demo  [#########.....................]  3s of 10s

POD             TRANSMIT  RECEIVE        RATE  TOP PEERS                    PLACES OF EXTERNAL PEERS
batch/report-1       0 B      0 B   0.0 bit/s                               Nairobi, KE
shop/web-1        1.2 MB    89 kB  1.2 Mbit/s  shop/client, node demo-node  São Paulo, BR · Zürich, CH

curl -s 127.0.0.1:9739/metrics`
	s := terminal(new(bytes.Buffer), 120, 24)
	if got := strings.Join(s.frame(exampleView(), 120, 24), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFrameFits(t *testing.T) {
	for _, size := range []struct{ width, height int }{{120, 24}, {80, 24}, {60, 8}, {40, 6}, {20, 4}, {3, 2}, {1, 1}} {
		s := terminal(new(bytes.Buffer), size.width, size.height)
		frame := s.frame(exampleView(), size.width, size.height)
		if len(frame) > max(size.height-1, 1) {
			t.Errorf("%v: got %d lines", size, len(frame))
		}
		for _, line := range frame {
			if n := utf8.RuneCountInString(line); n >= size.width && n > 0 {
				t.Errorf("%v: got a line of %d characters: %q", size, n, line)
			}
		}
	}
}

func TestScreenDrawsOver(t *testing.T) {
	var out bytes.Buffer
	s := terminal(&out, 100, 24)
	s.start()
	s.show(exampleView())
	first := out.String()
	if strings.Contains(first, "\x1b") || strings.Count(first, "\n") != 7 {
		t.Errorf("got a first frame %q, want 7 lines and nothing drawn over", first)
	}
	out.Reset()
	s.show(exampleView())
	if want := "\x1b[7A\r\x1b[J" + first; out.String() != want {
		t.Errorf("got %q, want the frame over the first one: %q", &out, want)
	}
	out.Reset()
	s.event("pod %s added", "shop/web-3")
	if want := "\x1b[7A\r\x1b[Jpod shop/web-3 added\n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
	out.Reset()
	s.show(exampleView())
	if out.String() != first {
		t.Errorf("got %q, want a frame below the event", &out)
	}
	s.final(exampleView())
	out.Reset()
	s.event("all equal")
	if want := "all equal\n"; out.String() != want {
		t.Errorf("got %q after the final frame, want %q", &out, want)
	}
}

func TestScreenColors(t *testing.T) {
	s := terminal(new(bytes.Buffer), 100, 24)
	s.color = true
	frame := strings.Join(s.frame(exampleView(), 100, 24), "\n")
	if !strings.Contains(frame, bold+"POD ") || !strings.HasSuffix(frame, reset) {
		t.Errorf("got %q, want a bold head and dim hints", frame)
	}
}

func TestScreenWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out, 10*time.Second, []string{"curl"})
	s.start()
	v := exampleView()
	for elapsed := time.Duration(0); elapsed <= 10*time.Second; elapsed += time.Second {
		v.elapsed = elapsed
		s.show(v)
	}
	s.final(v)
	const want = `meanwhile you can try:
  curl
  0s of 10s  2 pods  transmit 1.2 MB  receive 89 kB  1.2 Mbit/s
  5s of 10s  2 pods  transmit 1.2 MB  receive 89 kB  1.2 Mbit/s
 10s of 10s  2 pods  transmit 1.2 MB  receive 89 kB  1.2 Mbit/s

POD             TRANSMIT  RECEIVE        RATE  TOP PEERS                    PLACES OF EXTERNAL PEERS
batch/report-1       0 B      0 B   0.0 bit/s                               Nairobi, KE
shop/web-1        1.2 MB    89 kB  1.2 Mbit/s  shop/client, node demo-node  São Paulo, BR · Zürich, CH

`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}

func TestLayoutShortensTheWidestFlexibleColumn(t *testing.T) {
	columns := []column{{head: "A"}, {head: "N", right: true}, {head: "B", flexible: true}, {head: "C", flexible: true}}
	rows := [][]string{{"a", "12", "a text of some length", "Reykjavík, IS"}}
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, "a  12  a text of some length  Reykjavík, IS"},
		{40, "a  12  a text of some le…  Reykjavík, IS"},
		{30, "a  12  a text of…  Reykjavík,…"},
		{10, "a  12  a …"},
	} {
		if got := layout(columns, rows, c.width)[1]; got != c.want {
			t.Errorf("width %d: got %q, want %q", c.width, got, c.want)
		}
	}
}

// A name that holds line breaks or escapes makes neither lines nor commands.
func TestLayoutOfVileNames(t *testing.T) {
	columns := []column{{head: "A"}, {head: "B", flexible: true}}
	rows := [][]string{{"a\nforged  line", "b\x1b[2J\t\u202e<b>\xff"}}
	got := strings.Join(layout(columns, rows, 0), "\n")
	if want := "A               B\na\ufffdforged  line  b\ufffd[2J\ufffdb\ufffd"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
