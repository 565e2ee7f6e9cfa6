// SPDX-License-Identifier: Apache-2.0

// Package redirect decides which redirects podmeter's HTTP clients follow. A server that is
// asked may name any other, also one that only this node reaches: its loopback address, the
// cloud's metadata service.
//
// Its functions are for [http.Client.CheckRedirect]. What they refuse is an error that wraps
// [ErrRefused] and says where the redirect leads, without a password.
package redirect

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/podmeter/podmeter/internal/secret"
	"golang.org/x/net/idna"
)

// Limit is how many redirects one request may take: a server that upgrades to https and
// adds a slash takes two.
const Limit = 5

// ErrRefused is wrapped by the errors of redirects that are not followed.
var ErrRefused = errors.New("the redirect is not followed")

// SameHost is for requests with credentials or data: a redirect is followed on the same host
// alone, to the same port, or from http to https by the default ports of both; and only if
// the method stays what it is: by 301, 302 and 303 a POST becomes a GET without a body,
// whose success says nothing.
func SameHost(request *http.Request, via []*http.Request) error {
	from, to := via[len(via)-1], request
	switch {
	case len(via) > Limit:
		return refused(to, "it is one of more than %d", Limit)
	case from.Method != to.Method:
		return refused(to, "the %s would become a %s by status %d", from.Method, to.Method, to.Response.StatusCode)
	case !strings.EqualFold(from.URL.Hostname(), to.URL.Hostname()):
		return refused(to, "it leads to another host")
	case from.URL.Scheme == to.URL.Scheme && port(from.URL) == port(to.URL), isUpgrade(from.URL, to.URL):
		return nil
	case from.URL.Scheme == to.URL.Scheme || to.URL.Scheme == "https":
		return refused(to, "it leads to another port")
	}
	return refused(to, "it leads from https to %s", to.URL.Scheme)
}

// Download is for downloads, which have neither: a redirect is followed to any host by
// https, and on the same host as SameHost does; never from https to http.
func Download(request *http.Request, via []*http.Request) error {
	if len(via) <= Limit && request.URL.Scheme == "https" && request.URL.Hostname() != "" {
		return nil
	}
	return SameHost(request, via)
}

func isUpgrade(from, to *url.URL) bool {
	return from.Scheme == "http" && to.Scheme == "https" && (port(from) == port(to) || port(from) == "80" && port(to) == "443")
}

// IsServer reports whether an address, host:port, is that of a URL's server, or that of its https
// to which SameHost would let it lead. A name of other letters is looked up by its ASCII form.
func IsServer(u *url.URL, address string) bool {
	host, to, err := net.SplitHostPort(address)
	name := u.Hostname()
	if ascii, err := idna.Lookup.ToASCII(name); err == nil {
		name = ascii
	}
	return err == nil && strings.EqualFold(host, name) && (to == port(u) || u.Scheme == "http" && port(u) == "80" && to == "443")
}

// port is a URL's, or its scheme's.
func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// longest bounds what is repeated of a URL that a server made, in bytes.
const longest = 200

func refused(to *http.Request, format string, args ...any) error {
	where := secret.URL(to.URL)
	if len(where) > longest {
		where = strings.ToValidUTF8(where[:longest], "") + "…"
	}
	return fmt.Errorf("%w: %s: %q", ErrRefused, fmt.Sprintf(format, args...), where)
}
