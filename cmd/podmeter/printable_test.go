// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/ratelog"
)

func TestPrintable(t *testing.T) {
	for given, want := range map[string]string{
		"veth0\tZürich 中\n":  "veth0\tZürich 中\n",
		"\x1b[2Jveth\x07":    "\ufffd[2Jveth\ufffd",
		"a\xff":              "a\ufffd",
		"\u202eveth\u009b1m": "\ufffdveth\ufffd1m",
	} {
		if got := printable(given); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}

// No name gets through to the terminal as it is.
func TestStatusTextIsPrintable(t *testing.T) {
	s := sample()
	s.Node, s.Drain.Problem = "node\x1b[31m", "\x1b[2J"
	for n := range s.Interfaces {
		s.Interfaces[n].Name += "\x1b]0;x\x07"
		s.Interfaces[n].Ahead[0] = append(s.Interfaces[n].Ahead[0], "\x1b[1A")
	}
	s.Uplinks = []agent.UplinkStatus{{Name: "\x1bc", Problem: "\x1b[A"}}
	var out bytes.Buffer
	if err := writeStatus(&out, s, noon); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.ContainsAny(got, "\x1b\x07") || strings.Count(got, "veth1\ufffd]0;x\ufffd (11)") != 1 {
		t.Errorf("got %q, want no escape sequence in it", got)
	}
}

// Whatever a name holds, the text has the lines that the sample's has, and no columns more.
func TestStatusLinesAreNotForged(t *testing.T) {
	const forged = "a\nshop/web-1  0.0.0.0:22  tcp  front  sshd\t\v\f\r\u2028b"
	lines := func(s *agent.Status) []string {
		var out bytes.Buffer
		if err := writeStatus(&out, s, noon); err != nil {
			t.Fatal(err)
		}
		return strings.Split(out.String(), "\n")
	}
	want := lines(sample())
	s := sample()
	s.Node, s.Version, s.PinPath, s.AttachMode = forged, forged, forged, forged
	s.Identity.Problem, s.Drain.Problem, s.Identity.Source = forged, forged, forged
	s.Identity.Objects = map[string]int{forged: 1}
	for n := range s.GeoIP {
		s.GeoIP[n] = agent.GeoIPStatus{Path: forged, Type: forged, Fields: []string{forged}, Problem: forged, Built: time.Unix(0, 0)}
	}
	for n := range s.Interfaces {
		i := &s.Interfaces[n]
		i.Name, i.Attachment = i.Name+forged, forged
		if i.Pod != "" {
			i.Pod += forged
		}
		for l := range i.Listeners {
			i.Listeners[l] = agent.ListenerStatus{Protocol: forged, Address: forged, Container: forged, Command: forged}
		}
		for d := range i.Ahead {
			for a := range i.Ahead[d] {
				i.Ahead[d][a] = forged
			}
		}
	}
	got := lines(s)
	if len(got) != len(want) {
		t.Errorf("got %d lines, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for _, line := range got {
		if strings.ContainsAny(line, "\t\v\f\r\u2028") || strings.HasPrefix(line, "shop/web-1  0.0.0.0:22") {
			t.Errorf("got the line %q", line)
		}
	}
}

// A problem of several lines is told in one.
func TestProblemOfSeveralLines(t *testing.T) {
	s := sample()
	s.Identity.Problem = "f.yaml:1: a\nf.yaml:2: b"
	var out bytes.Buffer
	if err := writeStatus(&out, s, noon); err != nil {
		t.Fatal(err)
	}
	if want := "PROBLEM: f.yaml:1: a; f.yaml:2: b\n"; !strings.Contains(out.String(), want) {
		t.Errorf("got %s, want %q in it", out.String(), want)
	}
}

// The commands' logs are limited, in either format.
func TestLogsAreLimited(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := newLogger(&out, "debug", format, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 10_000 {
			log.With("interface", "veth0").Warn("somebody has detached our programs")
			log.Debug("attached")
		}
		ratelog.Flush(log)
		if got, most := strings.Count(out.String(), "\n"), ratelog.MaxLines+ratelog.MaxDebugLines+2; got > most || strings.Count(out.String(), "left-out") != 2 {
			t.Errorf("%s: got %d lines, want at most %d and the number of the others, twice:\n%.2000s", format, got, most, &out)
		}
	}
}

// The commands' logs take the bounds of package plain.
func TestLogsArePlain(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := newLogger(&out, "info", format, []string{"a\u009b\u202e" + strings.Repeat("b", 1<<20)})
		if err != nil {
			t.Fatal(err)
		}
		log.Error("read", "error", errors.New("x\u009b\ny"))
		if got := out.String(); strings.Count(got, "\n") != 2 || strings.ContainsAny(got, "\u009b\u202e") || len(got) > 10_000 {
			t.Errorf("%s: got %d bytes, %.200q", format, len(got), got)
		}
	}
}
