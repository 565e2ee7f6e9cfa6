// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/podmeter/podmeter/cmd/podmeter/table"
	"github.com/podmeter/podmeter/flows"
	"golang.org/x/term"
)

// plainEvery is how far lines lie apart where there is no terminal.
const plainEvery = 5 * time.Second

// screen shows a view: in place on a terminal, else as a line now and then. It
// is also where log lines go, so that they do not tear the table. It is safe for
// concurrent use.
type screen struct {
	mu       sync.Mutex
	out      io.Writer
	duration time.Duration
	// hints are lines that tell what can be tried meanwhile.
	hints []string
	// size returns the terminal's width and height; nil if there is none.
	size  func() (width, height int)
	color bool
	drawn int // lines of the last frame, to be drawn over
	next  time.Duration
}

// newScreen finds out what the output is.
func newScreen(out io.Writer, duration time.Duration, hints []string) *screen {
	s := &screen{out: out, duration: duration, hints: hints}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || os.Getenv("TERM") == "dumb" {
		return s
	}
	s.color = os.Getenv("NO_COLOR") == ""
	s.size = func() (int, int) {
		width, height, err := term.GetSize(int(file.Fd()))
		if err != nil || width == 0 || height == 0 {
			return 80, 24
		}
		return width, height
	}
	return s
}

// start says what is about to be seen.
func (s *screen) start() {
	if s.size != nil {
		return // the frame has the hints
	}
	s.Write([]byte("meanwhile you can try:\n  " + strings.Join(s.hints, "\n  ") + "\n"))
}

// Write writes whole lines above the table.
func (s *screen) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	b.WriteString(s.erase())
	b.Write(lines)
	if _, err := s.out.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(lines), nil
}

// erase returns what takes the last frame off the terminal.
func (s *screen) erase() string {
	if s.drawn == 0 {
		return ""
	}
	up := s.drawn
	s.drawn = 0
	return fmt.Sprintf("\x1b[%dA\r\x1b[J", up)
}

// event tells what happened.
func (s *screen) event(format string, arguments ...any) {
	fmt.Fprintf(s, format+"\n", arguments...)
}

// show shows a view.
func (s *screen) show(v *view) {
	if s.size == nil {
		s.showPlain(v)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	width, height := s.size()
	frame := s.frame(v, width, height)
	text := s.erase() + strings.Join(frame, "\n") + "\n"
	s.drawn = len(frame)
	io.WriteString(s.out, text) // a terminal that is gone ends us by other ways
}

func (s *screen) showPlain(v *view) {
	if v.elapsed < s.next {
		return
	}
	s.next = v.elapsed.Truncate(plainEvery) + plainEvery
	moved, rate := v.total()
	s.event("%3.0fs of %v  %d pods  transmit %s  receive %s  %s",
		v.elapsed.Seconds(), s.duration, len(v.pods),
		humanize.Bytes(moved[flows.Transmit]), humanize.Bytes(moved[flows.Receive]), bits(rate))
}

// final shows the last view, and leaves it where it is.
func (s *screen) final(v *view) {
	if s.size != nil {
		s.show(v)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drawn = 0
		return
	}
	s.event("\n%s\n", strings.Join(table.Layout(podColumns(), podRows(v), 0), "\n"))
}

const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	reset = "\x1b[0m"
)

func (s *screen) style(style, text string) string {
	if !s.color {
		return text
	}
	return style + text + reset
}

// frame returns the lines of a view. None is as wide as the terminal, which
// would break it, and they are fewer than its height, or the first ones could
// not be drawn over; hints go first, then pods.
func (s *screen) frame(v *view, width, height int) []string {
	width--
	pods := table.Layout(podColumns(), podRows(v), width)
	lines := []string{table.Cut(s.progress(v.elapsed), width), ""}
	lines = append(lines, s.style(bold, pods[0]))
	lines = append(lines, pods[1:]...)
	if room := height - 1; len(lines) > room {
		return lines[:max(room, 1)]
	}
	if len(lines)+1+len(s.hints) < height {
		lines = append(lines, "")
		for _, hint := range s.hints {
			lines = append(lines, s.style(dim, table.Cut(hint, width)))
		}
	}
	return lines
}

const barWidth = 30

// progress is the line with the time that has passed.
func (s *screen) progress(elapsed time.Duration) string {
	elapsed = min(elapsed, s.duration)
	full := int(barWidth * elapsed / s.duration)
	return fmt.Sprintf("podmeter demo  [%s%s]  %.0fs of %v",
		strings.Repeat("#", full), strings.Repeat(".", barWidth-full), elapsed.Seconds(), s.duration)
}

func podColumns() []table.Column {
	return []table.Column{
		{Head: "POD"}, {Head: "TRANSMIT", Right: true}, {Head: "RECEIVE", Right: true}, {Head: "RATE", Right: true},
		{Head: "TOP PEERS", Flexible: true}, {Head: "PLACES OF EXTERNAL PEERS", Flexible: true},
	}
}

func podRows(v *view) [][]string {
	var rows [][]string
	for _, p := range v.pods {
		rows = append(rows, []string{
			p.name.String(),
			humanize.Bytes(p.moved[flows.Transmit]), humanize.Bytes(p.moved[flows.Receive]), bits(p.rate),
			strings.Join(p.peers, ", "), strings.Join(p.places, " · "),
		})
	}
	return rows
}

// bits is a rate in bits a second.
func bits(rate float64) string {
	value, prefix := humanize.ComputeSI(rate)
	return fmt.Sprintf("%.1f %sbit/s", value, prefix)
}
