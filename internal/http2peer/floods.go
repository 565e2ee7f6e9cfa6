// SPDX-License-Identifier: Apache-2.0

package http2peer

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/net/http2"
)

// Flood is what a peer may send without end.
type Flood struct {
	Name string
	// Send sends the nth part, from 0 on.
	Send func(p *Peer, n uint32) error
}

// Floods returns all kinds that are known.
func Floods() []Flood {
	long := strings.Repeat("x", 4000)
	return []Flood{
		{"pings", func(p *Peer, n uint32) error { return p.WritePing(false, [8]byte{byte(n)}) }},
		{"settings", func(p *Peer, _ uint32) error { return p.WriteSettings() }},
		{"windows", func(p *Peer, _ uint32) error { return p.WriteWindowUpdate(0, 1) }},
		{"priorities", func(p *Peer, n uint32) error {
			return p.WritePriority(2*n+1, http2.PriorityParam{StreamDep: 0, Weight: 1})
		}},
		{"requests that are reset", func(p *Peer, n uint32) error {
			return errors.Join(p.Get(2*n+1), p.WriteRSTStream(2*n+1, http2.ErrCodeCancel))
		}},
		{"requests", func(p *Peer, n uint32) error { return p.Get(2*n + 1) }},
		{"large headers of few bytes", func(p *Peer, n uint32) error {
			return p.Get(2*n+1, "a", long, "a", long, "a", long, "a", long, "a", long)
		}},
		{"a header without an end", func(p *Peer, n uint32) error {
			if n == 0 {
				return p.begin(false)
			}
			return p.WriteContinuation(1, false, nil)
		}},
		{"a header that grows", func(p *Peer, n uint32) error {
			if n == 0 {
				return p.begin(false)
			}
			return p.WriteContinuation(1, false, bytes.Clone(p.block()))
		}},
		{"bodies", func(p *Peer, n uint32) error {
			if n == 0 {
				return p.begin(true)
			}
			return p.WriteData(1, false, make([]byte, 1000))
		}},
		{"unknown frames", func(p *Peer, _ uint32) error { return p.WriteRawFrame(0xfa, 0, 0, make([]byte, 100)) }},
	}
}
