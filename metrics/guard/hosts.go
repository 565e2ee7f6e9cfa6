// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// AnyHost as a name of [Hosts] stands for all.
const AnyHost = "*"

// Hosts says by which names a browser may read a server. Without that a site could give its
// own name the server's address, whereupon the browsers of its visitors would take the
// server for a part of the site and hand it what they get (DNS rebinding). No site can have
// an address or localhost as its name, so these are always allowed.
type Hosts struct {
	// Names are allowed besides, [AnyHost] all.
	Names []string
	// Node returns a name that is allowed as well; it may be nil.
	Node func() string
	// Pages reports whether a request is one that browsers alone make. Others are refused
	// only where a browser makes them, as scrapers use whatever names they like.
	Pages func(*http.Request) bool
}

// hostLimit is the longest name that DNS has.
const hostLimit = 253

// Check returns a handler that refuses what a browser asks for by another name.
func (g *Guard) Check(hosts Hosts, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hosts.allow(r) {
			next.ServeHTTP(w, r)
			return
		}
		g.refuse(reasonHost, originOfConn(fromContext(r.Context())))
		http.Error(w, refusalOf(hostname(r.Host)), http.StatusMisdirectedRequest)
	})
}

func refusalOf(name string) string {
	if len(name) > hostLimit {
		name = name[:hostLimit] + "…"
	}
	return fmt.Sprintf("%q is no name of this server that it knows, and another site may have led a browser here by it. "+
		"Use the server's address or its node's name, or allow the name: --page-hosts NAME.", printable(name))
}

func (h Hosts) allow(r *http.Request) bool {
	name := hostname(r.Host)
	switch {
	case name == "" || name == "localhost" || isAddress(name):
		return true
	case slices.ContainsFunc(h.Names, func(n string) bool { return n == AnyHost || strings.EqualFold(n, name) }):
		return true
	case h.Node != nil && strings.EqualFold(h.Node(), name):
		return true
	case viaAPIServer(r):
		return true
	}
	return !fromBrowser(r) && (h.Pages == nil || !h.Pages(r))
}

// hostname is a Host header without its port, and without the dot that ends a full name.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// viaAPIServer reports whether a request comes through the proxy of Kubernetes' API server,
// which passes on the name by which it was itself asked. A script may well write its
// headers. But it cannot take away the Connection header with which browsers keep a
// connection of HTTP/1.1 alive, and which the proxy does not pass on (RFC 9110, 7.6.1).
func viaAPIServer(r *http.Request) bool {
	path := r.Header.Get("X-Forwarded-Uri")
	return strings.HasPrefix(path, "/api/v1/") && strings.Contains(path, "/proxy") &&
		r.Header.Get("X-Forwarded-For") != "" && r.Header.Get("Connection") == ""
}

// fromBrowser reports whether a request has what only browsers send; each sends several of
// these, and no script can take all of them away.
func fromBrowser(r *http.Request) bool {
	if strings.HasPrefix(r.UserAgent(), "Mozilla/") {
		return true
	}
	for name := range r.Header {
		switch {
		case name == "Accept-Language", name == "Cookie", name == "Origin", name == "Referer", strings.HasPrefix(name, "Sec-"):
			return true
		}
	}
	return false
}
