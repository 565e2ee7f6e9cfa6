// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/servertest"
)

// When the context ends, nothing is left: no listener and no goroutine.
func TestShutdownLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newServer(t, serverOptions(t, &source{snapshot: handMade()}))
		listener, transport := servertest.NewListener(), &http.Transport{}
		transport.DialContext = listener.DialContext
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- server.Serve(ctx, listener) }()
		response, err := (&http.Client{Transport: transport}).Get("http://pipe/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			t.Error(err)
		}
		response.Body.Close()
		cancel() // with an idle connection open
		if err := <-done; err != nil {
			t.Errorf("serve: got %v, want no error", err)
		}
		select {
		case <-listener.Closed:
		default:
			t.Error("listener: got it open, want it closed")
		}
	})
}

// A request that runs when the context ends may go on, but not for ever.
func TestShutdownIsBounded(t *testing.T) {
	for _, c := range []struct {
		name    string
		release bool
		want    time.Duration
	}{{"waits for a request", true, time.Second}, {"cuts it off", false, 3 * time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := &blocking{make(chan struct{}), make(chan struct{})}
				o := serverOptions(t, source)
				o.ShutdownTimeout = 3 * time.Second
				server := newServer(t, o)
				listener, transport := servertest.NewListener(), &http.Transport{DisableKeepAlives: true}
				transport.DialContext = listener.DialContext
				ctx, cancel := context.WithCancel(t.Context())
				done, answered := make(chan error), make(chan error)
				go func() { done <- server.Serve(ctx, listener) }()
				go func() { answered <- get(transport, "http://pipe/metrics") }()
				<-source.entered
				cancel()
				began := time.Now() // of synctest's clock, which is exact
				if c.release {
					time.AfterFunc(time.Second, func() { close(source.release) })
				}
				err := <-answered
				if ok := err == nil; ok != c.release {
					t.Errorf("request: got %v, want an answer: %v", err, c.release)
				}
				if err := <-done; err != nil {
					t.Errorf("serve: got %v, want no error", err)
				}
				if got := time.Since(began).Round(time.Second); got != c.want {
					t.Errorf("shutdown: got %v, want %v", got, c.want)
				}
				if !c.release {
					close(source.release) // the gathering outlives its request
				}
			})
		})
	}
}

func get(transport *http.Transport, url string) error {
	response, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// A listener that fails ends Serve with what failed.
func TestServeReportsListener(t *testing.T) {
	server := newServer(t, serverOptions(t, &source{snapshot: &flows.Snapshot{}}))
	listener := servertest.NewListener()
	listener.Close()
	if err := server.Serve(t.Context(), listener); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}

// makeCertificate writes cert.pem and key.pem, for 127.0.0.1, and returns who
// trusts them.
func makeCertificate(t *testing.T, directory string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, filepath.Join(directory, "cert.pem"), string(certificate))
	write(t, filepath.Join(directory, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	return pool
}
