// SPDX-License-Identifier: Apache-2.0

// Package guard bounds what the peers of an HTTP server can take from it: connections,
// memory, descriptors, CPU time and lines of the log, before and after TLS and
// authentication, by HTTP/1 and HTTP/2.
//
// A [Guard] counts what it refuses and limits what it logs. [Guard.Protect] sets up one
// [http.Server] and the listener that it is to serve, each with a table of connections of
// its own, so that peers of one listener cannot take the places of another's. Handlers
// call [Answering] around an answer that a slow reader may hold for long.
//
// Limits are by source address. A source that reaches its limit loses its oldest
// connection without a running request. When all places are taken, the connection that
// makes room belongs to the IPv6 network (/64), and in it to the address, that has most. A
// peer that has few connections therefore always gets in, whatever others do. The limits
// are the constants of this package, each with its reason.
//
// Everything here is safe for concurrent use. Nothing has to be closed: what belongs to a
// listener ends with [http.Server.Serve].
package guard
