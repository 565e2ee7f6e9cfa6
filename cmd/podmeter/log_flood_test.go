// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/ratelog"
)

// talker is a receiver that takes each request and then talks on, unasked: net/http logs
// that for each connection.
type talker struct{ answered atomic.Int64 }

func (r *talker) serve(listener net.Listener) {
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			request, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			io.Copy(io.Discard, request.Body)
			r.answered.Add(1)
			fmt.Fprintf(c, "HTTP/1.1 204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: 1\r\n\r\nHTTP/1.1 200 %s unasked\r\n\r\n",
				request.Header.Get("Authorization"))
			io.Copy(io.Discard, c)
		}()
	}
}

// Receivers that do what makes a library write lines do not fill a disk.
func TestReceiversCannotFillTheLog(t *testing.T) {
	t.Parallel()
	h, r := newHost(t), new(talker)
	var listener net.Listener
	err := h.node.Do(func() (err error) {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go r.serve(listener)
	flags := h.flags("--remote-write-interval", "1s", "--remote-write-spool", filepath.Join(h.dir, "spool"))
	const receivers = 40
	for n := range receivers {
		flags = append(flags, "--remote-write-url", fmt.Sprintf("http://user:s3cret-word@%s/%d", listener.Addr(), n))
	}
	p := start(t, h.node, nil, flags...)
	h.await(t, p, "they have talked", func(*agent.Status) bool { return r.answered.Load() > 5*receivers })
	p.terminate(t)
	said := p.output.String()
	if got := strings.Count(said, "Unsolicited response"); got < ratelog.MaxLines || got > 3*(ratelog.MaxLines+1) {
		t.Errorf("got %d lines, want %d a minute and the number of the others:\n%.3000s", got, ratelog.MaxLines, said)
	}
	if !strings.Contains(said, "left-out=") {
		t.Errorf("got no number of what was left out:\n%.3000s", said)
	}
	if strings.Contains(said, "s3cret") || strings.Contains(said, base64.StdEncoding.EncodeToString([]byte("user:s3cret-word"))) {
		t.Errorf("got what the receiver repeated:\n%.3000s", said)
	}
}
