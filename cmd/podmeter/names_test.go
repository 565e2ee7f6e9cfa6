// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/ktest"
)

// The kernel lets an interface be called nearly anything. Whatever it is, counters go on
// with the next agent, and nothing of it gets through to a terminal.
func TestInterfaceOfAnyName(t *testing.T) {
	t.Parallel()
	for name, device := range map[string]string{
		"not UTF-8": "a\xff", "half a character": "b\xc3", "escape sequence": "\x1b[31mc", "null of CBOR": "d\xf6\x01",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			pod := h.node.Pod(t, ktest.PodOptions{Device: device, Gateway: "203.0.113.1/24", Address: "203.0.113.2/24"})
			p := start(t, h.node, nil, h.flags()...)
			both := func(s *agent.Status) bool {
				return len(s.Interfaces) == 2 && s.Interfaces[0].State == "attached" && s.Interfaces[1].State == "attached"
			}
			h.await(t, p, "both are attached", both)
			pod.Send(t, "203.0.113.1:9", 100, 10)
			counted := func(s *agent.Status) (packets uint64) {
				for _, i := range s.Interfaces {
					if i.Name != "veth0" {
						packets = i.Transmit.Packets
					}
				}
				return packets
			}
			before := h.await(t, p, "its packets are counted", func(s *agent.Status) bool { return counted(s) >= 10 })
			h.await(t, p, "they are in a checkpoint", func(s *agent.Status) bool { return s.Drain.Count >= before.Drain.Count+3 })
			p.Process.Kill()
			p.end(t)
			p = start(t, h.node, nil, h.flags()...)
			h.await(t, p, "both are there again, with what was counted", func(s *agent.Status) bool {
				return both(s) && counted(s) >= counted(before)
			})
			shown := start(t, h.node, nil, "status", "--socket", h.sock)
			shown.end(t)
			if got := shown.output.String(); strings.Contains(got, "\x1b") || strings.ToValidUTF8(got, "") != got {
				t.Errorf("status: got %q, want it printable", got)
			}
			p.terminate(t)
			if said := p.output.String(); !strings.Contains(said, "from-checkpoint=true") {
				t.Errorf("got no word of the checkpoint, want it taken; the agent said:\n%s", said)
			}
		})
	}
}
