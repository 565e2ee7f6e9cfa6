// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestPolicies(t *testing.T) {
	for _, test := range []struct {
		name, method string
		status       int
		from, to     string
		same         string // what the error of SameHost has, empty if it follows
		download     bool   // whether Download follows
	}{
		{"another path", "POST", 307, "https://a.example/w", "https://a.example/w/", "", true},
		{"another case of the host", "POST", 308, "https://a.example/w", "https://A.Example:443/w", "", true},
		{"to https", "POST", 307, "http://a.example/w", "https://a.example/w", "", true},
		{"to https on the same port", "POST", 307, "http://a.example:9090/w", "https://a.example:9090/w", "", true},
		{"to https on another port", "POST", 307, "http://a.example:9090/w", "https://a.example:6443/w", "another port", true},
		{"to another host", "POST", 307, "https://a.example/w", "https://b.example/w", "another host", true},
		{"to a subdomain", "POST", 308, "https://a.example/w", "https://b.a.example/w", "another host", true},
		{"to the loopback address", "POST", 307, "http://a.example/w", "http://127.0.0.1/w", "another host", false},
		{"to another port of the loopback address", "POST", 307, "http://127.0.0.1:9090/w", "http://127.0.0.1:2379/w", "another port", false},
		{"to http", "POST", 307, "https://a.example/w", "http://a.example/w", "from https to http", false},
		{"to http on the port of https", "GET", 302, "https://a.example/w", "http://a.example:443/w", "from https to http", false},
		{"of a GET", "GET", 302, "http://a.example/w", "http://a.example/v", "", true},
		{"to a file", "GET", 302, "http://a.example/w", "file:///etc/passwd", "another host", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			from, to := request(t, test.method, test.from), request(t, test.method, test.to)
			to.Response = &http.Response{StatusCode: test.status}
			err := SameHost(to, []*http.Request{from})
			if (err == nil) != (test.same == "") || err != nil && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.same)) {
				t.Errorf("with data: got %v, want %q", err, test.same)
			}
			if err := Download(to, []*http.Request{from}); (err == nil) != test.download {
				t.Errorf("a download: got %v, want it followed: %t", err, test.download)
			}
		})
	}
}

// A POST that becomes a GET has no body any more.
func TestMethodStays(t *testing.T) {
	from, to := request(t, "POST", "https://a.example/w"), request(t, "GET", "https://a.example/w/")
	to.Response = &http.Response{StatusCode: 303}
	if err := SameHost(to, []*http.Request{from}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "by status 303") {
		t.Errorf("got %v, want that it is refused for its status", err)
	}
}

func TestLimit(t *testing.T) {
	from, to := request(t, "GET", "https://a.example/w"), request(t, "GET", "https://a.example/w/")
	to.Response = &http.Response{StatusCode: 302}
	for n, via := 1, []*http.Request{from}; n <= Limit+1; n, via = n+1, append(via, from) {
		same, download := SameHost(to, via), Download(to, via)
		if follows := n <= Limit; (same == nil) != follows || (download == nil) != follows {
			t.Errorf("redirect %d: got %v and %v, want it followed: %t", n, same, download, follows)
		}
	}
}

// A password and endless URLs are not repeated.
func TestRefusedURL(t *testing.T) {
	from, to := request(t, "GET", "https://a.example/"), request(t, "GET", "http://user:hunter2@b.example/"+strings.Repeat("x", 10000))
	to.Response = &http.Response{StatusCode: 302}
	err := SameHost(to, []*http.Request{from})
	if err == nil || strings.Contains(err.Error(), "hunter2") || len(err.Error()) > 2*longest {
		t.Errorf("got %v, want a short error without a password", err)
	}
}

func request(t *testing.T, method, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
