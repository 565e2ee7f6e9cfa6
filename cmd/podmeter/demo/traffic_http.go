// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// serveHTTP answers GET /<n> with n bytes and takes what is posted.
func (t *traffic) serveHTTP(n *namespace, port uint16) error {
	l, err := n.listen(t.ctx, ":"+strconv.Itoa(int(port)))
	if err != nil {
		return fmt.Errorf("serve HTTP in %s: %w", n.name, err)
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(answerHTTP),
		ReadHeaderTimeout: answerWithin,
		// Connections are cut when a pod ends: nothing that a user should read.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	t.serve(server, func() { server.Serve(l) }) // returns when it is closed
	return nil
}

func answerHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body) // the client sees what goes wrong
	size, err := strconv.Atoi(r.URL.Path[1:])
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(size))
	w.Write(bytes.Repeat([]byte{'.'}, size))
}

// fetch is a request over a new TCP connection: GET, or POST with a body.
func fetch(ctx context.Context, e *exchange) error {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return e.from.dial(ctx, e.dialer("tcp"), network, address)
		},
	}}
	defer client.CloseIdleConnections()
	method, body := http.MethodGet, io.Reader(nil)
	if e.request > 0 {
		method, body = http.MethodPost, bytes.NewReader(make([]byte, e.request))
	}
	url := fmt.Sprintf("http://%s/%d", e.to, e.response)
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if n, err := io.Copy(io.Discard, response.Body); err != nil || n != int64(e.response) {
		return fmt.Errorf("read answer of %d bytes: got %d bytes, error %v", e.response, n, err)
	}
	return nil
}

// dialer dials from the exchange's source. Its answer must come soon enough for
// a demo that is short.
func (e *exchange) dialer(network string) *net.Dialer {
	d := &net.Dialer{KeepAlive: -1, Timeout: answerWithin}
	if !e.source.IsValid() {
		return d
	}
	source := netip.AddrPortFrom(e.source, 0)
	switch network {
	case "tcp":
		d.LocalAddr = net.TCPAddrFromAddrPort(source)
	case "udp":
		d.LocalAddr = net.UDPAddrFromAddrPort(source)
	default:
		d.LocalAddr = &net.IPAddr{IP: e.source.AsSlice()}
	}
	return d
}

// within lets a connection fail with the exchange's context.
func within(ctx context.Context, c net.Conn) (release func()) {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	return func() {
		stop()
		c.Close()
	}
}
