// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// With TLS and basic auth from a Secret the agent gets ready all the same, and serves
// its metrics to whoever has the password, over HTTPS alone.
func TestWebConfig(t *testing.T) {
	c := inCluster(t)
	plain := os.Getenv("PODMETER_METRICS")
	address, err := url.Parse(plain)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	client := trusting(t, folder, net.ParseIP(address.Hostname()))
	c.kubectl(t, "", "create", "secret", "generic", "podmeter-web", "--namespace", agentNamespace,
		"--from-file", "testdata/webconfig/web-config.yml", "--from-file", folder)
	t.Cleanup(func() {
		c.cleanUp(t, "delete", "secret", "podmeter-web", "--namespace", agentNamespace, "--ignore-not-found")
	})
	c.kustomize(t, "testdata/webconfig") // waits until the pod is ready

	address.Scheme = "https"
	for _, test := range []struct {
		name, url, password string
		want                int
	}{
		{"password", address.String(), "scrape", http.StatusOK},
		{"wrong password", address.String(), "guess", http.StatusUnauthorized},
		{"no password", address.String(), "", http.StatusUnauthorized},
		{"plain HTTP", plain, "scrape", http.StatusBadRequest},
	} {
		t.Run(test.name, func(t *testing.T) { checkAccess(t, client, test.url, test.password, test.want) })
	}
	out := c.kubectl(t, "", "exec", "--namespace", agentNamespace, "daemonset/podmeter", "--", "/podmeter", "status", "--ready")
	if len(out) == 0 {
		t.Error("podmeter status: got nothing")
	}
}

// checkAccess wants an answer to a request, with metrics only if that is 200.
func checkAccess(t *testing.T, client *http.Client, address, password string, want int) {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if password != "" {
		request.SetBasicAuth("prometheus", password)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != want {
		t.Errorf("got %s, want %d", response.Status, want)
	}
	if got := bytes.Contains(body, []byte("\npodmeter_build_info{")); got != (want == http.StatusOK) {
		t.Errorf("metrics in the answer: got %v, want %v", got, !got)
	}
}

// trusting writes tls.crt and tls.key for an address, and returns who trusts them.
func trusting(t *testing.T, folder string, address net.IP) *http.Client {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{address}, IsCA: true, BasicConstraintsValid: true}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: certificate}, "tls.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		content := pem.EncodeToMemory(block)
		trusted.AppendCertsFromPEM(content)
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
