// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"sync"
)

// screen writes lines, below which a terminal shows a status. Its methods may be called
// from any goroutine.
type screen struct {
	out   io.Writer
	width int // of a terminal; 0 for what is none

	mu   sync.Mutex
	last string // the status that a terminal shows
}

func (s *screen) terminal() bool { return s.width > 0 }

// line writes a line that stays.
func (s *screen) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintln(s.out, text)
	s.draw(s.last)
}

// status replaces the status; elsewhere than on a terminal it is one more line.
func (s *screen) status(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal() {
		if text != "" {
			fmt.Fprintln(s.out, text)
		}
		return
	}
	s.clear()
	s.draw(text)
}

func (s *screen) clear() {
	if s.last != "" {
		fmt.Fprint(s.out, "\r\x1b[K")
	}
}

// draw shows a status, without what would need a second line.
func (s *screen) draw(text string) {
	if runes := []rune(text); len(runes) >= s.width && s.terminal() {
		text = string(runes[:s.width-1])
	}
	fmt.Fprint(s.out, text)
	s.last = text
}
