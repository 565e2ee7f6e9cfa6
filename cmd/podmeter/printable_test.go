// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
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
