// SPDX-License-Identifier: Apache-2.0

// Package http2peer speaks HTTP/2 by single frames, for tests of what a server does about
// peers that a client library would never be. It is imported by tests alone.
package http2peer

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Peer is a client. It is for one goroutine, beside one that reads Conn.
type Peer struct {
	*http2.Framer
	Conn net.Conn
	// Written are the bytes sent.
	Written int
	// Streams is how many concurrent ones the server allows.
	Streams uint32

	headers bytes.Buffer
	encoder *hpack.Encoder
}

// New begins HTTP/2 on a connection whose TLS handshake has chosen it.
func New(conn net.Conn) (*Peer, error) {
	p := &Peer{Conn: conn}
	p.encoder = hpack.NewEncoder(&p.headers)
	p.Framer = http2.NewFramer(p, conn)
	// The server's settings come first, and a pipe has no room for both.
	var wait sync.WaitGroup
	wait.Go(func() { io.WriteString(p, http2.ClientPreface) })
	frame, err := p.ReadFrame()
	wait.Wait()
	if err != nil {
		return nil, err
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		return nil, fmt.Errorf("the first frame is a %v", frame.Header().Type)
	}
	p.Streams, _ = settings.Value(http2.SettingMaxConcurrentStreams)
	return p, nil
}

// Write implements [io.Writer] for the framer.
func (p *Peer) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	p.Written += n
	return n, err
}

// block encodes a header.
func (p *Peer) block(more ...string) []byte {
	p.headers.Reset()
	all := append([]string{":method", "GET", ":path", "/", ":scheme", "https", ":authority", "a"}, more...)
	for i := 0; i+1 < len(all); i += 2 {
		p.encoder.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]})
	}
	return p.headers.Bytes()
}

// Get sends a request, with pairs of further names and values in its header.
func (p *Peer) Get(stream uint32, more ...string) error {
	return p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: p.block(more...), EndStream: true, EndHeaders: true})
}

// begin sends a request whose header, or whose body, does not end.
func (p *Peer) begin(endHeaders bool) error {
	return p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(), EndHeaders: endHeaders})
}
