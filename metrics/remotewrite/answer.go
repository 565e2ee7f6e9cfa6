// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"time"
)

// doubtTime is how long an answer that may be about the way or about the samples is taken for
// one about the way.
const doubtTime = 10 * time.Minute

// answer is what a receiver said to a request that it did not take.
type answer struct {
	status int
	after  time.Duration
	text   string
}

// Error implements error.
func (a *answer) Error() string { return fmt.Sprintf("%d: %s", a.status, a.text) }

// errOld says that a receiver does not know protocol 2.0.
var errOld = errors.New("it knows protocol 1.0 alone")

// verdict is what an answer says of the request.
type verdict uint8

const (
	// passes is what a later try may get over: it is about the way to the receiver.
	passes verdict = iota
	// doubtful is what may be about either.
	doubtful
	// lasts is about the samples: the receiver never takes them.
	lasts
)

// judge returns what the error of a request says of it, and when the receiver wants the next try.
func judge(err error) (verdict, time.Duration) {
	a := new(answer)
	if !errors.As(err, &a) {
		return passes, 0 // the network, or a redirect that is not followed
	}
	switch a.status {
	case 0, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return lasts, a.after
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusLocked,
		http.StatusTooEarly, http.StatusUpgradeRequired, http.StatusTooManyRequests, http.StatusUnavailableForLegalReasons:
		return passes, a.after // of the way: a token that changes, an ingress, a connection that led elsewhere
	}
	if a.status/100 == 4 { // a conflict is what Thanos says of samples that are too old
		return doubtful, a.after
	}
	return passes, a.after // a redirect that leads nowhere, a page: somebody stands before the receiver
}

// isPage reports whether an answer is for people: somebody before the receiver wants them to
// sign in, say, and the receiver has got nothing.
func isPage(header http.Header) bool {
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	return err == nil && (kind == "text/html" || kind == "application/xhtml+xml")
}

// doubt is what is known of doubtful answers. The zero doubt knows of none.
type doubt struct {
	// since is when the first of them came, with no other answer meanwhile.
	since time.Time
	// resolved is that a request was given up for one, settled that the next one was taken: so they
	// are about the samples.
	resolved, settled bool
}

// lasts reports whether a doubtful answer that came now is about the samples.
func (d *doubt) lasts(now time.Time) bool {
	if d.since.IsZero() {
		d.since = now
	}
	d.resolved = d.settled || now.Sub(d.since) >= doubtTime
	return d.resolved
}

// other notes that an answer came that is of the way.
func (d *doubt) other() { d.since = time.Time{} }

// taken notes that the receiver took a request.
func (d *doubt) taken() {
	*d = doubt{settled: d.settled || d.resolved}
}
