// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows/plain"
)

// A process is called by any 15 bytes that it likes.
func TestNameOfAProcessIsPlain(t *testing.T) {
	for given, want := range map[string]string{
		"nginx":                "nginx",
		"a\tb\nc":              "a\ufffdb\ufffdc",
		"\x1b[2J":              "\ufffd[2J",
		"\u202e<b>":            "\ufffdb\ufffd",
		"\xffa\xffa\xffa\xffa": "\ufffda\ufffda\ufffda\ufffda",
		"abcdefghijklmno":      "abcdefghijklmno",
	} {
		var owner bpf.SocketSocketOwner
		for i := range []byte(given) {
			owner.Command[i] = int8(given[i])
		}
		if got := make(commands).owner(&owner, clock{}).Command; got != want || !plain.Is(got, plain.KernelLimit) {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}
