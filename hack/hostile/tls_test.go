// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/http2peer"
)

const (
	password = "nobody-may-read-this"
	// passwordHash is its bcrypt, of the cost that htpasswd has by default nowadays.
	passwordHash = "$2a$10$pjru/MVsitt7IPs/CIlsa.yqnQeIfyoIk0cX4bn6kEzrVvxAo2K5u"
)

// tlsAttacks come to one agent with TLS and passwords, whose scraper asks by both.
func tlsAttacks() []attack {
	return []attack{
		{name: "TLS handshakes that begin and never end", refused: []string{"source_connections"}, run: fromPod(400, halfHandshake)},
		{name: "TLS handshakes as fast as one pod can", run: fromPod(32, handshake)},
		{name: "TLS handshakes as fast as 200 addresses can", missed: 1, run: fromOutside(400, handshake)},
		{name: "garbage instead of TLS", run: fromPod(16, garbage)},
		{name: "TLS, and headers of many fields", refused: []string{"headers"}, run: fromPod(16, overTLS("http/1.1", manyFields))},
		{name: "floods of HTTP/2: pings, settings, resets, headers without an end", missed: 0.5, refused: []string{"flood"},
			run: fromPod(32, overTLS("h2", floodHTTP2))},
		{name: "passwords guessed by 32 connections", refused: []string{"login"}, run: fromPod(32, overTLS("http/1.1", guess))},
		{name: "passwords of 700 kB", refused: []string{"headers"}, run: fromPod(16, overTLS("http/1.1", longPassword))},
	}
}

// newTLSWorld is one whose agent serves with TLS and a password.
func newTLSWorld(t *testing.T, binary string) (w *world, secrets []string) {
	t.Helper()
	w = newWorld(t, binary)
	folder := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certificate, key := makeCertificate(t)
	config := fmt.Sprintf("tls_server_config: {cert_file: %s, key_file: %s}\nbasic_auth_users: {scraper: %s}\n",
		write("certificate.pem", certificate), write("key.pem", key), passwordHash)
	change := func(transport *http.Transport, r *http.Request) {
		if transport.TLSClientConfig == nil {
			transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // attacks are what is tried here
		}
		r.SetBasicAuth("scraper", password)
	}
	w.start(t, "https", change, "--static-file", write("static.yaml", []byte(w.static())),
		"--web-config-file", write("web.yaml", []byte(config)))
	lines := strings.Split(strings.TrimSpace(string(key)), "\n")
	return w, append([]string{password, passwordHash, "guessed-"}, lines[1:len(lines)-1]...)
}

func makeCertificate(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048) // what most issuers make, and slower to sign with than ECDSA
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// keepsSecrets looks for secrets in all that the agent says.
func (w *world) keepsSecrets(t *testing.T, secrets []string) {
	t.Helper()
	said, err := os.ReadFile(w.agent.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/metrics", "/status", "/readyz"} {
		text, err := w.agent.get(path)
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, text...)
	}
	for _, secret := range secrets {
		if bytes.Contains(said, []byte(secret)) {
			t.Errorf("%.8s… is in the log, the status or the metrics", secret)
		}
	}
}

// halfHandshake sends the beginning of a ClientHello.
func halfHandshake(_ context.Context, c net.Conn) {
	hello := clientHello()
	c.Write(hello[:len(hello)/2])
	io.Copy(io.Discard, c)
}

// handshake lets the server do its part, which is the expensive one, and goes.
func handshake(_ context.Context, c net.Conn) {
	c.Write(clientHello())
	c.Read(make([]byte, 1<<12))
}

// clientHello is that of Go, which is made once: it costs the client more than the server.
var clientHello = sync.OnceValue(func() []byte {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake()
	hello := make([]byte, 1<<12)
	n, _ := server.Read(hello)
	return hello[:n]
})

func garbage(_ context.Context, c net.Conn) {
	c.Write(bytes.Repeat([]byte("GET / \x16\x03\x01\x1b[2J"), 20))
	io.Copy(io.Discard, io.LimitReader(c, 1<<10))
}

// overTLS does something within TLS.
func overTLS(protocol string, do client) client {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}, ClientSessionCache: tls.NewLRUClientSessionCache(0), ServerName: "a"}
	return func(ctx context.Context, c net.Conn) {
		secure := tls.Client(c, config)
		if secure.HandshakeContext(ctx) == nil {
			do(ctx, secure)
		}
	}
}

// floodHTTP2 is one of all floods, in turn by the connection's port.
func floodHTTP2(ctx context.Context, c net.Conn) {
	p, err := http2peer.New(c)
	if err != nil {
		return
	}
	p.WriteSettings()
	floods := http2peer.Floods()
	number := c.LocalAddr().(*net.TCPAddr).Port
	if number/len(floods)%2 == 0 {
		go io.Copy(io.Discard, c)
	}
	for n := uint32(0); ctx.Err() == nil; n++ {
		if err := floods[number%len(floods)].Send(p, n); err != nil {
			return
		}
	}
}

func guess(ctx context.Context, c net.Conn) {
	for n := 0; ctx.Err() == nil; n++ {
		r, _ := http.NewRequest(http.MethodGet, "http://a/metrics", nil)
		r.SetBasicAuth("scraper", fmt.Sprint("guessed-", n, time.Now().UnixNano()))
		if r.Write(c) != nil {
			return
		}
		if _, err := c.Read(make([]byte, 1<<12)); err != nil {
			return
		}
	}
}

func longPassword(_ context.Context, c net.Conn) {
	r, _ := http.NewRequest(http.MethodGet, "http://a/metrics", nil)
	r.SetBasicAuth("scraper", strings.Repeat("guessed-", 90_000))
	r.Write(c)
	io.Copy(io.Discard, c)
}
