// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
)

// basic adds a password within the transport, as the clients of libraries do.
type basic struct{ http.RoundTripper }

func (b basic) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.SetBasicAuth("user", "inner-password")
	return b.RoundTripper.RoundTrip(request)
}

// A server that repeats the whole request in each part of its answer gives no secret away,
// unless it answers with success.
func TestTransport(t *testing.T) {
	status := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		dump, _ := httputil.DumpRequest(r, true)
		user, password, _ := r.BasicAuth()
		said := fmt.Sprintf("%s %s:%s %s", dump, user, password, strings.Repeat("x", 100))
		w.Header().Set("Location", "/login?from="+r.Header.Get("X-Key")+password)
		w.WriteHeader(status)
		io.WriteString(w, said)
	}))
	defer server.Close()
	inner := http.DefaultTransport.(*http.Transport).Clone()
	client := &http.Client{
		Transport:     Transport(basic{inner}),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	for _, status = range []int{200, 302, 400, 401, 500} {
		request, err := http.NewRequest(http.MethodPost, server.URL+"/a?api_key=query-secret&resourceVersion=123456", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Key", "header-secret")
		request.Header.Set("X-Tenant", "1")
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		all := fmt.Sprint(string(content), response.Header)
		for _, secret := range []string{"inner-password", "query-secret", "header-secret", request.Header.Get("Authorization")} {
			if secret != "" && strings.Contains(all, secret) != (status == 200) {
				t.Errorf("%d: got %s in %s", status, secret, all)
			}
		}
		if !strings.Contains(string(content), "X-Tenant: 1") || !strings.Contains(all, "resourceVersion=123456") {
			t.Errorf("%d: got %s, want all that is no secret", status, all)
		}
	}
}

// What breaks off with a secret in its error has none.
func TestTransportErrors(t *testing.T) {
	client := &http.Client{Transport: Transport(basic{broken{}})}
	_, err := client.Get("http://a.test/?token=query-secret")
	if err == nil {
		t.Fatal("got no error")
	}
	if text := Request(err).Error(); strings.Contains(text, "secret") || strings.Contains(text, "inner-password") || !strings.Contains(text, "malformed") {
		t.Errorf("got %s", text)
	}
}

// broken is a connection whose other end repeats what it got as a status line.
type broken struct{}

func (broken) RoundTrip(request *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("malformed HTTP response %q", request.URL.RawQuery)
}
