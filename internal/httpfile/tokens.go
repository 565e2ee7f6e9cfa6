// SPDX-License-Identifier: Apache-2.0

package httpfile

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/podmeter/podmeter/internal/redirect"
	"github.com/prometheus/common/config"
)

// tokenTimeout is how long a server of OAuth 2.0 may take for a token, from the connection on; it may
// be asked twice. The library has no limit of its own, and waits whatever the request's is.
const tokenTimeout = 5 * time.Second

// own marks the context of requests of the client itself. The library asks for tokens with
// another one, and a client that follows any redirect.
type own struct{}

// dial connects for requests of the client, and within limits for those for tokens: to the
// token's server alone.
func dial(tokens *config.OAuth2) config.DialContextFunc {
	var dialer net.Dialer
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if ctx.Value(own{}) != nil {
			return dialer.DialContext(ctx, network, address)
		}
		if !isTokenServer(tokens, address) {
			return nil, fmt.Errorf("%w: from the token's server to %q", redirect.ErrRefused, address)
		}
		deadline := time.Now().Add(tokenTimeout)
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return conn, conn.SetDeadline(deadline)
	}
}

// isTokenServer reports whether an address is that of the token's server, or may be that of the
// proxy before it, who is asked for all.
func isTokenServer(tokens *config.OAuth2, address string) bool {
	server, err := url.Parse(tokens.TokenURL)
	switch {
	case err != nil:
		return false
	case tokens.ProxyURL.URL != nil, tokens.ProxyFromEnvironment:
		return true
	}
	return redirect.IsServer(server, address)
}
