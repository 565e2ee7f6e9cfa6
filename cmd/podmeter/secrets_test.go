// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/flows/geo/demodb"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/crypto/bcrypt"
)

// secrets are texts that must not be in anything that leaves podmeter.
type secrets map[string]string

// add makes a secret of a kind, which it returns.
func (s secrets) add(what string) string {
	text := make([]byte, 9)
	rand.Read(text)
	s[what] = "Canary" + base64.RawURLEncoding.EncodeToString(text)
	return s[what]
}

// keep notes one that was made elsewhere.
func (s secrets) keep(what, text string) string {
	s[what] = text
	return text
}

// absent fails a test for each secret that is in a text, as it is, quoted for a URL, in
// base64, or in part.
func (s secrets) absent(t *testing.T, where, text string) {
	t.Helper()
	for what, secret := range s {
		for _, form := range []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret)), secret[:len(secret)*2/3]} {
			if at := strings.Index(text, form); at >= 0 {
				t.Errorf("%s has %s:\n%.600s", where, what, text[max(0, at-300):min(len(text), at+300)])
				break
			}
		}
	}
}

// identity is a certificate and key of this test, as files and as a secret.
func (s secrets) identity(t *testing.T, dir string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
	s.keep("a line of a private key", strings.Split(text, "\n")[1])
	return writeSecret(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))), writeSecret(t, dir, "key.pem", text)
}

// hash is what a web configuration has of a password.
func (s secrets) hash(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return s.keep("the hash of a password", string(hash))
}

func writeSecret(t *testing.T, dir, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// parrot answers with the whole request in its body, its location and a header, by the
// status that the path ends in: also a proxy, a receiver and an API server.
type parrot struct{ asked atomic.Int64 }

// ServeHTTP implements http.Handler.
func (p *parrot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked.Add(1)
	dump, _ := httputil.DumpRequest(r, false)
	user, password, _ := r.BasicAuth()
	status := http.StatusUnauthorized
	for part := range strings.SplitSeq(r.URL.Path, "/") {
		if n, err := strconv.Atoi(part); err == nil {
			status = n
		}
	}
	switch status {
	case 0: // cut off, after a line that is none of HTTP
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			fmt.Fprintf(c, "%s:%s %q\r\n\r\n", user, password, dump)
			c.Close()
		}
		return
	case http.StatusNoContent:
		w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", "1")
	}
	said := fmt.Sprintf("%s:%s %s", user, password, dump)
	w.Header().Set("WWW-Authenticate", "Basic "+url.QueryEscape(said))
	if status/100 == 3 {
		w.Header().Set("Location", "http://198.51.100.77/login?from="+url.QueryEscape(said)+"&to="+password)
	}
	w.Header().Set("Content-Type", "text/plain")
	if strings.Contains(r.URL.Path, "/api/v1/") && status >= 400 {
		w.Header().Set("Content-Type", "application/json")
		said = fmt.Sprintf(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": %q, "code": %d, "errorType": "execution", "error": %q}`,
			said, status, said)
	}
	w.WriteHeader(status)
	if status != http.StatusNoContent {
		io.WriteString(w, said)
	}
}

// newParrot serves one in a namespace until the test ends.
func newParrot(t *testing.T, in *ktest.Namespace, certificate *tls.Certificate) (p *parrot, address string) {
	t.Helper()
	var listener net.Listener
	err := in.Do(func() (err error) {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p = new(parrot)
	server := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	t.Cleanup(func() { server.Close() })
	address = listener.Addr().String()
	if certificate != nil {
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{*certificate}})
	}
	go func() { _ = server.Serve(listener) }()
	return p, address
}

// shown collects what an agent shows to whoever may ask.
func (h *host) shown(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, args := range [][]string{
		{"status"}, {"status", "--output", "json"}, {"status", "--edges"}, {"verify"}, {"verify", "--output", "json"},
	} {
		p := start(t, h.node, nil, append(slices.Clone(args), "--socket", h.sock)...)
		p.end(t)
		if p.output.Len() < 20 {
			t.Errorf("%q: got %s, want more", args, &p.output)
		}
		all[strings.Join(args, " ")] = p.output.String()
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", h.sock) },
	}}
	defer client.CloseIdleConnections()
	for _, path := range []string{
		"/", "/metrics", "/readyz", "/healthz", agent.StatusPath, "/page/state", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2",
		"/debug/pprof/heap?debug=1",
	} {
		response, err := client.Get("http://agent" + path)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode/100 == 4 || len(content) == 0 {
			t.Errorf("%s: got %d with %d bytes, %v, want an answer", path, response.StatusCode, len(content), err)
		}
		all[path] = fmt.Sprint(response.Header, string(content))
	}
	return all
}

// visit asks an agent with TLS and a password in all ways, right and wrong, at last while
// spoil has made its configuration a bad one.
func visit(t *testing.T, in *ktest.Namespace, password, wrong string, spoil func()) {
	t.Helper()
	dial := func() (c net.Conn, err error) {
		err = in.Do(func() error {
			c, err = net.Dial("tcp", "127.0.0.1:9739")
			return err
		})
		return c, err
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	defer client.CloseIdleConnections()
	for n, want := range []int{http.StatusUnauthorized, http.StatusOK, http.StatusInternalServerError} {
		given := password
		switch n {
		case 0:
			given = wrong
		case 2: // by the same connection
			spoil()
		}
		request, err := http.NewRequest(http.MethodGet, "https://127.0.0.1:9739/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth("scraper", given)
		request.Close = n == 2
		response, err := client.Do(request)
		if err != nil || response.StatusCode != want {
			t.Fatalf("got %v, %v, want %d", response, err, want)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	if c, err := dial(); err == nil { // its handshake needs the configuration
		_ = tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake()
		c.Close()
	}
	for _, raw := range []string{
		"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Basic " + base64.StdEncoding.EncodeToString([]byte("scraper:"+password)) + "\r\n\r\n",
		"\x16\x03\x01\x00\x05" + password,
	} {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, raw)
		io.Copy(io.Discard, c)
		c.Close()
	}
}

// No password, token, key or hash gets into the log, at its most talkative, into status,
// metrics, page or profiles, whatever receivers, proxies and the API server do with what they
// are sent: their answers repeat it all.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		auth   func(s secrets) string // of the HTTP configuration file
		apiURL string                 // its path has the status of the API server
		logged string                 // of it
	}{
		{"password", func(s secrets) string {
			return "basic_auth: {username: writer, password: " + s.add("password of remote write") + "}"
		}, "401", "no right to"},
		{"token and headers", func(s secrets) string {
			return "authorization: {credentials: " + s.add("token of remote write") + "}\n" +
				"http_headers: {X-Key: {secrets: [" + s.add("header of remote write") + "]}}\n" +
				"proxy_from_environment: true"
		}, "500", "does not answer"},
		{"none", nil, "302", "does not answer"},
		{"dead proxy", nil, "503", "does not answer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h, s := newHost(t), make(secrets)
			certificate, key := s.identity(t, h.dir)
			pair, err := tls.LoadX509KeyPair(certificate, key)
			if err != nil {
				t.Fatal(err)
			}
			p, plain := newParrot(t, h.node, nil)
			_, secure := newParrot(t, h.node, &pair)
			password := s.add("password of the server")
			web := writeSecret(t, h.dir, "web.yml", fmt.Sprintf("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {scraper: %q}\n", s.hash(t, password)))
			kubeconfig := writeSecret(t, h.dir, "kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "http://%s/%s"}}]
users: [{name: a, user: {token: %s}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
`, plain, test.apiURL, s.add("token of the kubeconfig")))
			in := func(address, path string) string { return fmt.Sprintf("%s/%s", address, path) }
			user := func() string { return "user:" + s.add(fmt.Sprintf("password %d of a URL", len(s))) + "@" }
			query := func() string { return "?api_token=" + s.add(fmt.Sprintf("parameter %d of a URL", len(s))) }
			var urls []string
			for _, status := range []string{"204", "400", "401", "403", "500", "302", "307", "0"} {
				urls = append(urls, "http://"+user()+in(plain, "write/"+status)+query(), "http://"+in(plain, "write2/"+status)+query())
			}
			urls = append(urls, "https://"+user()+in(secure, "write/204"), "http://"+user()+in(secure, "write/204"), "https://"+user()+in(plain, "write/204"),
				"http://"+user()+in("127.0.0.1:1", "write")+query(), "http://"+user()+in("198.51.100.50", "proxied/407")+query(), "http://"+s.add("a token as a user")+"@"+in(plain, "401"))
			flags := h.flags("--log-level", "debug", "--page", "--pprof", "--web-config-file", web, "--identity", "kubernetes", "--kubeconfig", kubeconfig,
				"--node-name", "here", "--remote-write-interval", "1s", "--remote-write-spool", filepath.Join(h.dir, "spool"))
			for _, u := range urls {
				flags = append(flags, "--remote-write-url", u)
			}
			if test.auth != nil {
				flags = append(flags, "--remote-write-http-config-file", writeSecret(t, h.dir, "http.yml", test.auth(s)))
			}
			proxy := "http://proxy:" + s.add("password of a proxy") + "@" + plain
			environ := []string{"HTTP_PROXY=" + proxy, "HTTPS_PROXY=" + proxy}
			if test.name == "dead proxy" {
				dead := "http://proxy:" + s.add("password of a dead proxy") + "@127.0.0.1:1"
				environ = []string{"HTTP_PROXY=" + dead, "HTTPS_PROXY=" + dead + ":port"} // the latter is none
			}
			process := start(t, h.node, environ, flags...)
			h.await(t, process, "the API server is missed", func(s *agent.Status) bool { return s.Identity.Problem != "" })
			visit(t, h.node, password, s.add("a wrong password"), func() {
				writeSecret(t, h.dir, "web.yml", fmt.Sprintf("%q: a\ntls_server_config: %s\nbasic_auth_users: [%s]\n", s["the hash of a password"], password, password))
			})
			h.await(t, process, "all receivers were tried", func(*agent.Status) bool {
				return p.asked.Load() > int64(3*len(urls)) && h.value(t, "podmeter_remote_write_requests_total", "outcome", "retried") > float64(len(urls))
			})
			for where, text := range h.shown(t) {
				s.absent(t, where, text)
			}
			process.terminate(t)
			said := process.output.String()
			s.absent(t, "the log", said)
			for _, want := range []string{"level=DEBUG", "remote write fails", "a request is refused", test.logged, "TLS handshake error", "Unable to parse configuration"} {
				if !strings.Contains(said, want) {
					t.Errorf("got no %q in the log, want it to show that there was something to hide:\n%.3000s", want, said)
				}
			}
		})
	}
}

// What is wrong with a setting or a file that has a secret is told without it.
func TestSecretsInFaults(t *testing.T) {
	t.Parallel()
	dir, s := t.TempDir(), make(secrets)
	_, key := s.identity(t, dir)
	keyText, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	pw := s.add("a password")
	hash := s.hash(t, pw)
	file := func(content string) string {
		return writeSecret(t, dir, fmt.Sprintf("%d.yml", len(content)*1000+len(s)+int(time.Now().UnixNano()%1000)), content)
	}
	cases := make(map[string][]string)
	environ := make(map[string][]string)
	for n, u := range []string{
		"http://u:" + pw + "@a:b/", "http://u:%zz" + pw + "@a/", "u:" + pw + "@a", "ftp://u:" + pw + "@a/", "https//u:" + pw + "@a", "http://u:\"" + pw + "@a/",
		"http://u:" + pw + " @a/", "http://u:" + pw + "/x@a/", "http://u:1/" + pw + "@/", "://u:" + pw + "@a", "http://u:" + pw + "\x7f@a", "http://" + pw + "@[::1", "\"http://u:" + pw + "@a/\"x",
	} {
		cases[fmt.Sprintf("URL %d", n)] = []string{"agent", "--remote-write-url", u}
		environ[fmt.Sprintf("URL %d in the environment", n)] = []string{"PODMETER_REMOTE_WRITE_URL=" + u}
		cases[fmt.Sprintf("URL %d in a file", n)] = []string{"agent", "--config", file("remote-write-url: " + fmt.Sprintf("%q", u))}
		cases[fmt.Sprintf("URL %d of Prometheus", n)] = []string{"geoip", "--prometheus-url", u, "--query", "a", "--geoip", "/none"}
		cases[fmt.Sprintf("mirror %d", n)] = []string{"geoip", "fetch", "--dir", filepath.Join(dir, "geoip"), "--mirror", u}
		cases[fmt.Sprintf("kubeconfig's server %d", n)] = []string{"agent", "--identity", "kubernetes", "--node-name", "a", "--kubeconfig", file(kubeconfigOf(fmt.Sprintf("server: %q", u), "token: a"))}
		cases[fmt.Sprintf("kubeconfig's proxy %d", n)] = []string{"agent", "--identity", "kubernetes", "--node-name", "a", "--kubeconfig", file(kubeconfigOf(fmt.Sprintf("server: https://a, proxy-url: %q", u), "token: a"))}
		cases[fmt.Sprintf("proxy %d", n)] = []string{"agent", "--remote-write-url", "http://a/", "--remote-write-http-config-file", file(fmt.Sprintf("proxy_url: %q", u))}
	}
	cases["argument"] = []string{"agent", "http://u:" + pw + "@a/"}
	cases["mapping in the file"] = []string{"agent", "--config", file("remote-write-url: {a: \"http://u:" + pw + "@a/\"}")}
	cases["unknown key in the file"] = []string{"agent", "--config", file("remote-write-urls: \"http://u:" + pw + "@a/\"")}
	cases["no YAML in the file"] = []string{"agent", "--config", file("remote-write-url: \"http://u:" + pw + "@a/\n")}
	for name, content := range map[string]string{
		"no mapping": "basic_auth: " + pw, "list": "bearer_token: [" + pw + "]", "mapping": "authorization: {credentials: {" + pw + ": a}}",
		"unknown": "authorization: {credential: " + pw + "}", "no YAML": "basic_auth: {password: \"" + pw + "}", "twice": "bearer_token: " + pw + "\nbasic_auth: {password: " + pw + "}",
		"number": "tls_config: " + pw, "key": fmt.Sprintf("tls_config: {cert: a, key: %q}", keyText), "key as a file": fmt.Sprintf("tls_config: {cert_file: a, key_file: %q}", keyText),
		"type": "authorization: {type: Basic, credentials: " + pw + "}", "secret as a key": pw + ": a", "header": "http_headers: {Authorization: {secrets: [" + pw + "]}}",
	} {
		cases["HTTP configuration: "+name] = []string{"agent", "--remote-write-url", "http://a/", "--remote-write-http-config-file", file(content)}
	}
	for name, content := range map[string]string{
		"no mapping": "basic_auth_users: " + hash, "list": "basic_auth_users: {a: [\"" + hash + "\"]}", "no hash": "basic_auth_users: {a: " + pw + "}",
		"cut": "basic_auth_users: {a: \"" + hash[:30] + "\"}", "key as a file": fmt.Sprintf("tls_server_config: {cert_file: cert.pem, key_file: %q}", keyText),
		"no certificate": "tls_server_config: {cert_file: key.pem, key_file: key.pem}", "inline": fmt.Sprintf("tls_server_config: {cert: a, key: %q}", keyText),
		"secret as a key": "\"" + hash + "\": a", "wrong place": "tls_server_config: \"" + hash + "\"", "no YAML": "basic_auth_users: {a: \"" + hash + "}",
	} {
		cases["web configuration: "+name] = []string{"agent", "--web-config-file", file(content)}
	}
	for name, user := range map[string]string{
		"list": "token: [" + pw + "]", "mapping": "token: {" + pw + ": a}", "key": "client-certificate-data: YQ==, client-key-data: " + base64.StdEncoding.EncodeToString(keyText),
		"no base64": "client-key-data: \"" + pw + "!\"", "two": "token: " + pw + ", username: a, password: " + pw, "control": "token: \"" + pw + "\\n\"",
	} {
		cases["kubeconfig: "+name] = []string{"agent", "--identity", "kubernetes", "--node-name", "a", "--kubeconfig", file(kubeconfigOf("server: https://127.0.0.1:1", user))}
	}
	node := ktest.NewNamespace(t)
	run := func(name string, environ, args []string) {
		t.Run(name, func(t *testing.T) {
			if args[0] == "agent" {
				args = append(slices.Clone(args), "--pin-path", filepath.Join(dir, "no-bpffs"), "--socket", filepath.Join(dir, "sock"), "--state-dir", filepath.Join(dir, "state"),
					"--log-level", "debug", "--listen", "127.0.0.1:9739")
			}
			p := start(t, node, environ, args...)
			if code := p.end(t); code == 0 || p.output.Len() == 0 {
				t.Errorf("got exit code %d and %s, want an error", code, &p.output)
			}
			s.absent(t, "what it said", p.output.String())
		})
	}
	for name, args := range cases {
		run(name, nil, args)
	}
	for name, variables := range environ {
		run(name, variables, []string{"agent"})
	}
}

// Nor does podmeter geoip show any, whatever Prometheus does.
func TestSecretsOfGeoIP(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"0", "302", "401", "500", "503"} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			dir, s, node := t.TempDir(), make(secrets), ktest.NewNamespace(t)
			p, address := newParrot(t, node, nil)
			process := start(t, node, nil, "geoip", "--debug", "--query", "a", "--interval", "1s", "--listen", "127.0.0.1:8080",
				"--geoip", writeSecret(t, dir, "city.mmdb", string(demodb.City())),
				"--http-config-file", writeSecret(t, dir, "http.yml", "authorization: {credentials: "+s.add("a token")+"}"),
				"--prometheus-url", "http://user:"+s.add("a password of a URL")+"@"+address+"/"+status)
			err := ktest.Eventually(agentPatience, "Prometheus was asked", func() bool { return p.asked.Load() > 4 })
			if err != nil {
				t.Error(err)
			}
			process.terminate(t)
			if said := process.output.String(); !strings.Contains(said, "gives no answer") || !strings.Contains(said, "level=DEBUG") {
				t.Errorf("got no word of it:\n%s", said)
			}
			s.absent(t, "the log", process.output.String())
		})
	}
}

// kubeconfigOf is a kubeconfig of a cluster and a user.
func kubeconfigOf(cluster, user string) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {%s}}]\nusers: [{name: a, user: {%s}}]\n", cluster, user)
	b.WriteString("contexts: [{name: a, context: {cluster: a, user: a}}]\ncurrent-context: a\n")
	return b.String()
}
