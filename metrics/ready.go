// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Readiness says whether the agent does its job, and what it waits for if not.
type Readiness struct {
	// Missing is what it waits for, one line each; it is ready if there is none.
	Missing []string
	// IdentitySource is the name of the identity source; empty for what has none.
	IdentitySource string
	// IdentityAge is how long ago the source was last known to be current. It is
	// shown only, and not at all if negative: for a source that cannot be out of
	// date, or that has never been current.
	IdentityAge time.Duration
}

// Ready reports whether nothing is missing.
func (r Readiness) Ready() bool { return len(r.Missing) == 0 }

// String returns the readiness in lines, the first of which is "ready" or "not
// ready".
func (r Readiness) String() string {
	var b strings.Builder
	if r.Ready() {
		b.WriteString("ready\n")
	} else {
		b.WriteString("not ready\n")
	}
	for _, missing := range r.Missing {
		fmt.Fprintf(&b, "missing: %s\n", missing)
	}
	if r.IdentitySource == "" {
		return b.String()
	}
	fmt.Fprintf(&b, "identity: %s", r.IdentitySource)
	if r.IdentityAge >= 0 {
		fmt.Fprintf(&b, ", current %s ago", r.IdentityAge.Round(time.Second))
	}
	b.WriteByte('\n')
	return b.String()
}

func readinessHandler(readiness func() Readiness) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		r := readiness()
		code := http.StatusOK
		if !r.Ready() {
			code = http.StatusServiceUnavailable
		}
		respond(w, code, r.String())
	})
}

// healthHandler says whether to let the process live; whether its numbers can be relied
// on is for /readyz.
func healthHandler(health func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if health != nil {
			if err := health(); err != nil {
				respond(w, http.StatusServiceUnavailable, err.Error()+"\n")
				return
			}
		}
		respond(w, http.StatusOK, "ok\n")
	})
}

func respond(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	io.WriteString(w, body) // the client may be gone
}
