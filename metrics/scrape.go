// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/podmeter/podmeter/metrics/guard"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	// scrapeShare is the part of one CPU that answers may take in the long run, after
	// scrapeBurst at once: one of 10,000 series takes some 100 ms.
	scrapeShare, scrapeBurst = 0.5, 5 * time.Second
	// scrapeCost is the most that one counts for. What takes longer waits for a CPU, or
	// for a drain, and the next should not wait for that.
	scrapeCost = 500 * time.Millisecond
)

// scrapes makes the answers for /metrics: one at a time, and one for all who have asked
// for its format before it is begun. An answer is never older than its request, and
// however many ask, the work is that of a few.
//
// It is held once, compressed, until its readers have it. For one that does not take gzip
// it is decompressed on the way.
type scrapes struct {
	// text and protobuf make the answers, uncompressed.
	text, protobuf http.Handler

	mu sync.Mutex
	// next are the answers that are not begun, by format.
	next map[expfmt.Format]*answer

	turn  sync.Mutex   // held while an answer is made
	share *guard.Share // guarded by turn
}

// answer is one that is made, once done is closed.
type answer struct {
	done   chan struct{}
	code   int // 0 if making it has failed
	header http.Header
	body   bytes.Buffer
	// zipped is what compresses a body, nil before it begins and of what is no success.
	zipped *gzip.Writer
}

func newScrapes(text, protobuf http.Handler) *scrapes {
	return &scrapes{
		text: text, protobuf: protobuf, next: make(map[expfmt.Format]*answer), share: guard.NewShare(scrapeShare, scrapeBurst),
	}
}

// handler returns what makes answers in a format.
func (s *scrapes) handler(format expfmt.Format) http.Handler {
	if format.FormatType() == expfmt.TypeProtoDelim {
		return s.protobuf
	}
	return s.text
}

// formats are those that scrapers ask for, the best first. Whoever waits for an answer may wait for
// one of each before, so that the forms of protobuf that are for people are not among them.
func formats() []expfmt.Format {
	return slices.DeleteFunc(expfmt.DefaultOpenMetricsAcceptedFormats(), func(f expfmt.Format) bool {
		return f.FormatType() == expfmt.TypeProtoText || f.FormatType() == expfmt.TypeProtoCompact
	})
}

// negotiate returns the format that a request asks for, and the one in which the answer is made.
// As names of podmeter have nothing to be escaped, all ways to escape it are one but dots,
// which doubles underscores.
func negotiate(header http.Header) (asked, made expfmt.Format) {
	asked = expfmt.NegotiateAccept(header, formats()...)
	if asked.ToEscapingScheme() == model.DotsEscaping {
		return asked, asked
	}
	return asked, asked.WithEscapingScheme(model.UnderscoreEscaping)
}

// ServeHTTP implements [http.Handler].
func (s *scrapes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked, made := negotiate(r.Header)
	a := s.answer(made)
	defer guard.Answering(r.Context())()
	a.send(w, asked, acceptsGzip(r.Header.Values("Accept-Encoding")))
}

// answer returns the next one in a format.
func (s *scrapes) answer(format expfmt.Format) *answer {
	s.mu.Lock()
	a := s.next[format]
	mine := a == nil
	if mine {
		a = &answer{done: make(chan struct{}), header: make(http.Header)}
		s.next[format] = a
	}
	s.mu.Unlock()
	if mine {
		s.make(a, format)
	}
	<-a.done
	return a
}

// make waits for its turn, and makes an answer.
func (s *scrapes) make(a *answer, format expfmt.Format) {
	s.turn.Lock()
	defer s.turn.Unlock()
	defer close(a.done)
	time.Sleep(s.share.Wait(time.Now()))
	s.mu.Lock()
	delete(s.next, format)
	s.mu.Unlock()
	began := time.Now()
	defer func() { now := time.Now(); s.share.Spend(now, min(now.Sub(began), scrapeCost)) }()
	s.handler(format).ServeHTTP(a, &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/metrics"},
		Header: http.Header{"Accept": {string(format)}},
	})
	a.end()
}

// Header implements [http.ResponseWriter], as the next two do.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader takes the first code.
func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
}

// Write implements [io.Writer].
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.code != http.StatusOK {
		return a.body.Write(p)
	}
	if a.zipped == nil {
		a.header.Set("Content-Encoding", "gzip")
		a.zipped, _ = gzip.NewWriterLevel(&a.body, gzip.BestSpeed) // it knows the level
	}
	return a.zipped.Write(p)
}

// end ends what has been written.
func (a *answer) end() {
	if a.zipped != nil {
		a.zipped.Close() // a buffer takes all
	}
}

// send sends an answer as one in a format; what cannot be sent is the reader's own.
func (a *answer) send(w http.ResponseWriter, format expfmt.Format, compressed bool) {
	if a.code == 0 {
		http.Error(w, "The answer could not be made.", http.StatusInternalServerError)
		return
	}
	header := w.Header()
	for name, values := range a.header {
		header[name] = values
	}
	if a.code == http.StatusOK {
		header.Set("Content-Type", string(format))
		header.Set("Vary", "Accept-Encoding")
	}
	if header.Get("Content-Encoding") != "gzip" || compressed {
		header.Set("Content-Length", strconv.Itoa(a.body.Len()))
		w.WriteHeader(a.code)
		w.Write(a.body.Bytes())
		return
	}
	header.Del("Content-Encoding")
	plain, err := gzip.NewReader(bytes.NewReader(a.body.Bytes()))
	if err != nil {
		http.Error(w, "The answer cannot be decompressed.", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(a.code)
	io.CopyBuffer(struct{ io.Writer }{w}, plain, make([]byte, 32<<10))
}

// acceptsGzip reports whether the values of Accept-Encoding take gzip, which "*" stands for
// where gzip is not named (RFC 9110, 12.5.3).
func acceptsGzip(values []string) bool {
	any := false
	for coding := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, weight, _ := strings.Cut(coding, ";")
		_, q, _ := strings.Cut(weight, "=")
		number, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
		taken := err != nil || number > 0
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "gzip":
			return taken
		case "*":
			any = taken
		}
	}
	return any
}
