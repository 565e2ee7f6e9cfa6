// SPDX-License-Identifier: Apache-2.0

// Package httpfile makes HTTP clients of files in the format of promtool's
// --http.config.file: authentication, TLS, headers.
//
// Such a client reads passwords, keys and certificates again while it is used. It does not
// ask anybody as long as one of these files is none, which would hang it, and it follows
// redirects as [redirect.SameHost] has them. A server of OAuth 2.0 has 5 s for a token, and leads
// nowhere else.
package httpfile

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/podmeter/podmeter/internal/redirect"
	"github.com/podmeter/podmeter/internal/regular"
	"github.com/podmeter/podmeter/internal/secret"
	"github.com/prometheus/common/config"
)

// Client returns the client that a file describes. The name is for its own metrics.
func Client(path, name string) (*http.Client, error) {
	content, err := regular.Read(path, regular.ConfigLimit)
	if err != nil {
		return nil, fmt.Errorf("read HTTP configuration: %w", err)
	}
	client, err := parse(content, filepath.Dir(path), name)
	if err != nil {
		return nil, fmt.Errorf("read HTTP configuration %s: %w", path, err)
	}
	return client, nil
}

func parse(content []byte, directory, name string) (*http.Client, error) {
	settings, err := config.LoadHTTPConfig(string(content))
	if err != nil {
		return nil, secret.File(err)
	}
	settings.SetDirectory(directory)
	named := regular.NamedBy(content, directory)
	if err := named.Check(); err != nil {
		return nil, err
	}
	var options []config.HTTPClientOption
	if settings.OAuth2 != nil {
		options = append(options, config.WithDialContextFunc(dial(settings.OAuth2)))
	}
	client, err := config.NewClientFromConfig(*settings, name, options...)
	if err != nil {
		return nil, secret.File(err)
	}
	if client.CheckRedirect == nil { // else none is followed
		client.CheckRedirect = redirect.SameHost
	}
	client.Transport = &transport{client.Transport, named}
	return client, nil
}

// transport looks at the named files before each request.
type transport struct {
	http.RoundTripper
	named regular.Named
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := t.named.Check(); err != nil {
		if request.Body != nil {
			request.Body.Close()
		}
		return nil, err
	}
	return t.RoundTripper.RoundTrip(request.WithContext(context.WithValue(request.Context(), own{}, true)))
}

// CloseIdleConnections is what [http.Client.CloseIdleConnections] calls.
func (t *transport) CloseIdleConnections() {
	if inner, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		inner.CloseIdleConnections()
	}
}
