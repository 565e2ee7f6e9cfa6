// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podmeter/podmeter/internal/http2peer"
	"github.com/podmeter/podmeter/internal/servertest"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
)

// serveTLS is serve with TLS, and with that HTTP/2.
func serveTLS(t *testing.T, listener net.Listener, handler http.Handler, change func(*limits)) (s *served, stop func()) {
	t.Helper()
	s = &served{log: new(servertest.Log)}
	var err error
	if s.guard, err = New(Options{Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(s.log, nil))}); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}}
	guarded, release := s.guard.Protect(server, listener)
	s.tables = append(s.tables, guarded.(*tableListener).table)
	if change != nil {
		change(&s.tables[0].limits)
	}
	done := make(chan error)
	go func() { done <- server.ServeTLS(guarded, "", "") }()
	stop = sync.OnceFunc(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: got %v, want %v", err, http.ErrServerClosed)
		}
		release()
		time.Sleep(time.Minute) // of synctest's clock: timers of HTTP/2 and TLS end
	})
	t.Cleanup(stop)
	return s, stop
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// dialHTTP2 returns a peer that has sent its preface.
func dialHTTP2(t *testing.T, listener *servertest.Listener) *http2peer.Peer {
	t.Helper()
	c := tls.Client(dial(listener), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	p, err := http2peer.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if p.Streams != maxStreams {
		t.Errorf("streams: got %d, want %d", p.Streams, maxStreams)
	}
	return p
}

// Whatever a peer of HTTP/2 sends without end, and whether it reads the answers or not, its
// connection ends after what an honest one might send.
func TestFloodsOfHTTP2(t *testing.T) {
	for _, c := range http2peer.Floods() {
		for _, reads := range []bool{true, false} {
			t.Run(c.Name+map[bool]string{true: ", read", false: ", not read"}[reads], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					listener := servertest.NewListener()
					s, stop := serveTLS(t, listener, http.NotFoundHandler(), nil)
					p := dialHTTP2(t, listener)
					p.WriteSettings()
					var wait sync.WaitGroup
					if reads {
						wait.Go(func() { io.Copy(io.Discard, p.Conn) })
					}
					most := 2 * inputBurst
					for n := uint32(0); p.Written < most; n++ {
						if err := c.Send(p, n); err != nil {
							break
						}
					}
					if p.Written >= most {
						t.Errorf("sent %d bytes, want it ended before", p.Written)
					}
					p.Conn.Close()
					wait.Wait()
					stop()
					if sum := s.tables[0].sum; sum != (group{}) {
						t.Errorf("left: got %+v, want nothing", sum)
					}
				})
			})
		}
	}
}

// Who never gives a stream room to be sent in is not waited for, and others of the
// connection get theirs.
func TestSlowReadersOfHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := servertest.NewListener()
		answer := bytes.Repeat([]byte("x"), 1<<20)
		s, stop := serveTLS(t, listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(answer) }), nil)
		p := dialHTTP2(t, listener)
		if err := errors.Join(p.WriteSettings(), p.Get(1)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for {
			frame, err := p.ReadFrame()
			if err != nil {
				t.Fatalf("got %v, want the stream reset", err)
			}
			if reset, ok := frame.(*http2.RSTStreamFrame); ok && reset.StreamID == 1 {
				break
			}
		}
		if took := time.Since(began); took > paceTimeout {
			t.Errorf("ended after %v, want %v", took, paceTimeout)
		}
		synctest.Wait()
		if s.count(reasonSlowReader) != 1 {
			t.Errorf("slow readers: got %v, want 1", s.count(reasonSlowReader))
		}
		p.Conn.Close()
		stop()
	})
}

// An honest client of HTTP/2 has as many answers at once as one address may want, with
// large headers.
func TestHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := servertest.NewListener()
		all := make(chan struct{})
		var here sync.WaitGroup
		here.Add(maxStreams)
		go func() { here.Wait(); close(all) }()
		s, stop := serveTLS(t, listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			here.Done()
			<-all // at the same time
			io.WriteString(w, r.Proto)
		}), nil)
		transport := &http.Transport{
			Protocols: new(http.Protocols),
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
				c := tls.Client(dial(listener), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
				return c, c.Handshake()
			},
		}
		transport.Protocols.SetHTTP2(true)
		var wait sync.WaitGroup
		for range maxStreams {
			wait.Go(func() {
				r, _ := http.NewRequest(http.MethodGet, "https://a/", nil)
				r.Header.Set("Cookie", strings.Repeat("x", headerBytes-500))
				response, err := transport.RoundTrip(r)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil || string(body) != "HTTP/2.0" {
					t.Errorf("got %q, %v, want HTTP/2.0", body, err)
				}
			})
		}
		wait.Wait()
		if sum := s.tables[0].sum; sum.http2 == 0 {
			t.Errorf("got %+v, want it known that HTTP/2 is spoken", sum)
		}
		transport.CloseIdleConnections()
		stop()
	})
}

// Connections of HTTP/2 have a limit of their own.
func TestConnectionsOfHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := servertest.NewListener()
		s, stop := serveTLS(t, listener, http.NotFoundHandler(), func(l *limits) { l.http2 = 3 })
		var peers []*http2peer.Peer
		for range 8 {
			p := dialHTTP2(t, listener)
			p.WriteSettings()
			go io.Copy(io.Discard, p.Conn)
			peers = append(peers, p)
			synctest.Wait()
			if got := s.tables[0].sum.http2; got > 3 {
				t.Fatalf("got %d, want at most 3", got)
			}
			time.Sleep(time.Millisecond) // so that one is older
		}
		if s.count(reasonHTTP2) != 5 {
			t.Errorf("refused: got %v, want 5", s.count(reasonHTTP2))
		}
		if err := peers[7].WritePing(false, [8]byte{}); err != nil {
			t.Errorf("the last one: got %v, want it open", err)
		}
		for _, p := range peers {
			p.Conn.Close()
		}
		stop()
	})
}
