// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
)

const (
	// answerLimit is how much of an answer that is no success is kept, in bytes: a Status of
	// the API server has some hundred, and of an error page less is shown.
	answerLimit = 64 << 10
	// shortest is the least length of what is masked in an answer: a tenant's number in a
	// header is none, and would be everywhere.
	shortest = 5
)

// Transport masks what was sent as a secret in answers that are no success and in errors, as
// these are logged and shown: servers, and proxies before them, may repeat the request. The
// inner one may add authentication.
func Transport(inner http.RoundTripper) http.RoundTripper { return &transport{inner} }

type transport struct{ inner http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	sent := new(sent)
	trace := &httptrace.ClientTrace{WroteHeaderField: sent.header}
	response, err := t.inner.RoundTrip(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		if text := sent.masker(request).Replace(err.Error()); text != err.Error() {
			err = &masked{err, text}
		}
		return response, err
	}
	if response.StatusCode/100 == 2 || response.StatusCode == http.StatusSwitchingProtocols {
		return response, nil
	}
	content, _ := io.ReadAll(io.LimitReader(response.Body, answerLimit)) // what was read is shown
	response.Body.Close()
	mask := sent.masker(request)
	content = []byte(mask.Replace(string(content)))
	response.Body = io.NopCloser(bytes.NewReader(content))
	response.ContentLength = int64(len(content))
	response.Status = mask.Replace(response.Status)
	for _, values := range response.Header {
		for i := range values {
			values[i] = mask.Replace(values[i])
		}
	}
	return response, nil
}

// CloseIdleConnections is what [http.Client.CloseIdleConnections] calls.
func (t *transport) CloseIdleConnections() {
	if inner, ok := t.inner.(interface{ CloseIdleConnections() }); ok {
		inner.CloseIdleConnections()
	}
}

// WrappedRoundTripper is how client-go finds the inner one.
func (t *transport) WrappedRoundTripper() http.RoundTripper { return t.inner }

// sent are the secrets of a request.
type sent struct {
	mu     sync.Mutex
	values []string
}

// header notes a header field that was written.
func (s *sent) header(name string, values []string) {
	if isPublic(name) {
		return
	}
	for _, value := range values {
		s.note(value)
		_, credentials, found := strings.Cut(value, " ")
		if !found {
			continue
		}
		s.note(credentials)
		if plain, err := base64.StdEncoding.DecodeString(credentials); err == nil {
			_, password, _ := strings.Cut(string(plain), ":")
			s.note(string(plain), password)
		}
	}
}

// isPublic reports whether the values of a header are not secret.
func isPublic(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "host", "user-agent", "connection", "transfer-encoding", "te", "trailer", "x-prometheus-remote-write-version":
		return true
	}
	return strings.HasPrefix(name, ":") || strings.HasPrefix(name, "content-") || strings.HasPrefix(name, "accept")
}

// isSecret reports whether a parameter of a query has a name like those of credentials.
func isSecret(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"auth", "cred", "key", "pass", "pwd", "secret", "sig", "token"}, func(part string) bool {
		return strings.Contains(name, part)
	})
}

// masker replaces all that a request has of secrets in a text.
func (s *sent) masker(request *http.Request) *strings.Replacer {
	for name, values := range request.Header {
		s.header(name, values)
	}
	if user := request.URL.User; user != nil {
		password, given := user.Password()
		s.note(password)
		if password == "" || !given {
			s.note(user.Username())
		}
	}
	for name, values := range request.URL.Query() {
		if isSecret(name) {
			s.note(values...)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The longest first: one may be a part of another.
	slices.SortFunc(s.values, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, value := range s.values {
		if len(value) >= shortest {
			pairs = append(pairs, value, Mask)
			if escaped := url.QueryEscape(value); escaped != value {
				pairs = append(pairs, escaped, Mask)
			}
		}
	}
	return strings.NewReplacer(pairs...)
}

func (s *sent) note(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = append(s.values, values...)
}
