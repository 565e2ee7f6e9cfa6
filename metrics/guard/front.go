// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"net/http"
)

// front is the outermost handler: it refuses what no request to these servers is, before
// authentication, and bounds how slowly the answer is read.
func (g *Guard) front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := fromContext(r.Context())
		if c != nil {
			c.handles(1)
			defer c.handles(-1)
		}
		paced := &pacedWriter{ResponseWriter: w, conn: c, controller: http.NewResponseController(w), slow: g.refuse}
		switch fields := fieldsOf(r.Header); {
		case fields > headerFields:
			g.reject(paced, c, reasonHeaders, http.StatusRequestHeaderFieldsTooLarge,
				fmt.Sprintf("The header has %d fields; at most %d are expected.", fields, headerFields))
		case tooLarge(r):
			g.reject(paced, c, reasonBody, http.StatusRequestEntityTooLarge, "No body, or a short one, is expected.")
		default:
			if r.ContentLength != 0 {
				r.Body = http.MaxBytesReader(paced, r.Body, bodyBytes)
			}
			g.authenticate(paced, r, c, next)
		}
	})
}

// fieldsOf counts values, as a header with one name many times has as many lines.
func fieldsOf(header http.Header) (n int) {
	for _, values := range header {
		n += len(values)
	}
	return n
}

// tooLarge reports whether a request has a body that nobody wants. One without a length is
// unwanted where a request means nothing by it.
func tooLarge(r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return r.ContentLength != 0
	}
	return r.ContentLength > bodyBytes
}

// reject answers and ends the connection, without reading what else there is of the request.
func (g *Guard) reject(w http.ResponseWriter, c *conn, why reason, code int, text string) {
	g.refuse(why, originOfConn(c))
	w.Header().Set("Connection", "close")
	http.Error(w, text, code)
}

func originOfConn(c *conn) origin {
	if c == nil {
		return origin{}
	}
	return c.origin
}
