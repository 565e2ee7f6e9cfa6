// SPDX-License-Identifier: Apache-2.0

package guard

import "time"

// What all connections of a listener may take together. At their worst these are some
// 150 MiB, two thirds of which are the kernel's buffers of sockets; SECURITY.md adds them up.
const (
	// maxConnections is the most connections of a listener: many times the scrapers,
	// probes and browsers of a node, and few enough for 120 KiB of buffers each.
	maxConnections = 256
	// maxSourceConnections is the most of one source address. An HA pair of Prometheus
	// behind one SNAT, a kubelet or the API server's proxy with its browsers share one.
	maxSourceConnections = 32
	// maxHTTP2 is the most HTTP/2 connections, each of which may queue
	// 4 * maxStreams requests of which only some bytes came over the wire.
	maxHTTP2 = 64
	// descriptorShare is the part of the process's descriptors that the connections of a
	// listener may take, as 1/n. The agent has two listeners.
	descriptorShare = 4
)

// What a request may be.
const (
	// headerBytes is the limit of a request's header. Requests of scrapers have some
	// hundred bytes; cookies of an ingress and client certificates in headers have more.
	headerBytes = 16 << 10
	// headerFields is the most fields of a header, as each takes 100 bytes however short
	// it is.
	headerFields = 256
	// unreadBytes is what the unfinished requests and TLS handshakes of all connections
	// may have together: parsed, a header of short fields takes 25 times its bytes.
	unreadBytes = 1 << 20
	// bodyBytes is the limit of a body, which only /debug/pprof/symbol takes.
	bodyBytes = 16 << 10
	// inputRate and inputBurst bound the bytes a second of one connection: 50 requests a
	// second, or 32 of 8 KiB at once. More is a flood of requests or of HTTP/2 frames.
	inputRate, inputBurst = 32 << 10, 256 << 10
	// stalledInput is what a peer may send while one write to it has not ended: HTTP/2
	// answers each ping and each faulty frame, and keeps the answers until they are read.
	stalledInput = 64 << 10
	// maxStreams is the most concurrent requests of an HTTP/2 connection.
	maxStreams = 4
)

// How long things may take.
const (
	// headerTimeout bounds a TLS handshake, and from its first byte on a request's header.
	headerTimeout = 5 * time.Second
	// readTimeout bounds a request with its body.
	readTimeout = 10 * time.Second
	// idleTimeout is how long a connection is kept between two requests: longer than the
	// scrape interval of a minute that Prometheus has by default.
	idleTimeout = 75 * time.Second
	// writeTimeout bounds an answer. It has to hold a slow drain and a large scrape.
	writeTimeout = time.Minute
	// paceBytes have to be taken over within paceTimeout by the peer, or by the kernel for
	// it: 3.2 KiB/s and more.
	paceBytes, paceTimeout = 32 << 10, 10 * time.Second
	// lingerTimeout is how long the kernel may go on sending what a closed connection has
	// not delivered; lingerPoll is how often that is looked at.
	lingerTimeout, lingerPoll = 10 * time.Second, 100 * time.Millisecond
	// pingAfter is how long an HTTP/2 peer may be silent before it is asked, pingTimeout
	// how long it may take to answer.
	pingAfter, pingTimeout = 30 * time.Second, 10 * time.Second
)

// The kernel's buffers of a connection, which are charged to the container. The kernel
// doubles both for its own overhead; without a bound it lets them grow to 4 and 6 MiB.
const (
	sendBuffer    = 128 << 10
	receiveBuffer = 32 << 10
)

// What large answers may take: each is held in memory until its reader has it.
const (
	maxAnswers       = 64
	maxSourceAnswers = 8
)

// What failed logins may take. A password is compared by bcrypt, some 60 ms of CPU time.
const (
	// credentialBytes is the limit of an Authorization header, and so of what the
	// authentication's cache keeps of it.
	credentialBytes = 1 << 10
	// loginShare is the part of one CPU that checks of unknown credentials may take, after
	// loginBurst of it at once.
	loginShare, loginBurst = 0.25, time.Second
	// loginWait is how long a login waits for its turn: less than a scrape's 10 s.
	loginWait = 8 * time.Second
	// maxLogins is the most logins that wait.
	maxLogins = 64
	// maxKnown is how many accepted credentials are remembered, maxFailures how many
	// networks with failed ones. Beyond, all of them are forgotten.
	maxKnown, maxFailures = 64, 1024
)

// maxText is the limit of a text that a peer chose, in the log; how many lines peers may
// write is package ratelog's.
const maxText = 256

// limits are those that depend on the process, or that a test makes smaller.
type limits struct {
	connections, sourceConnections, http2, answers, sourceAnswers, unread int
	linger                                                                time.Duration
}

func defaultLimits(descriptors uint64) limits {
	return limits{
		connections:       int(max(1, min(maxConnections, descriptors/descriptorShare))),
		sourceConnections: maxSourceConnections, http2: maxHTTP2,
		answers: maxAnswers, sourceAnswers: maxSourceAnswers, unread: unreadBytes, linger: lingerTimeout,
	}
}
