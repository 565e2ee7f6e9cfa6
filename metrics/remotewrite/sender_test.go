// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/snappy"
	"github.com/podmeter/podmeter/internal/owned"
	"github.com/podmeter/podmeter/internal/servertest"
	remote "github.com/prometheus/client_golang/exp/api/remote/genproto/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// reply is how a receiver answers; an error is that of a connection.
type reply func(*http.Request, http.ResponseWriter) error

// receiver takes requests and answers as it is told; 204 as of protocol 2.0 when it is told
// no more.
type receiver struct {
	mu       sync.Mutex
	answers  []reply
	contents []string
	times    []time.Time
	// asked are the URLs of the tries.
	asked    []string
	requests []*remote.Request
}

// RoundTrip implements http.RoundTripper, so that no time passes on the way.
func (r *receiver) RoundTrip(request *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	r.contents = append(r.contents, request.Header.Get("X-Prometheus-Remote-Write-Version"))
	r.times, r.asked = append(r.times, time.Now()), append(r.asked, request.Method+" "+request.URL.Redacted())
	w := httptest.NewRecorder()
	if len(r.answers) > 0 {
		answer := r.answers[0]
		r.answers = r.answers[1:]
		if err := answer(request, w); err != nil {
			return nil, err
		}
		return w.Result(), nil
	}
	if request.Header.Get("Content-Type") == contentV2 {
		decoded, err := snappy.Decode(nil, body)
		if err != nil {
			return nil, err
		}
		var got remote.Request
		if err := proto.Unmarshal(decoded, &got); err != nil {
			return nil, err
		}
		r.requests = append(r.requests, &got)
	}
	w.Header().Set(writtenHeader, "1")
	w.WriteHeader(http.StatusNoContent)
	return w.Result(), nil
}

func status(code int, headers ...string) reply {
	return func(_ *http.Request, w http.ResponseWriter) error {
		for n := 0; n+1 < len(headers); n += 2 {
			w.Header().Set(headers[n], headers[n+1])
		}
		w.WriteHeader(code)
		return nil
	}
}

// slow answers after a time, if the sender waits for so long.
func slow(lasts time.Duration) reply {
	return func(request *http.Request, w http.ResponseWriter) error {
		select {
		case <-request.Context().Done():
			return request.Context().Err()
		case <-time.After(lasts):
			w.Header().Set(writtenHeader, "1")
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
	}
}

func broken(*http.Request, http.ResponseWriter) error { return io.ErrUnexpectedEOF }

// What may pass is tried again, in time; what is refused is given up, and counted; who
// knows protocol 1.0 alone gets that.
func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		name    string
		answers []reply
		// versions are those of the tries, outcomes what is counted.
		versions []string
		outcomes map[string]float64
		took     time.Duration
	}{
		{"taken", nil, []string{"2.0.0"}, map[string]float64{"sent": 1}, 0},
		{"500 twice", []reply{status(500), status(503)}, []string{"2.0.0", "2.0.0", "2.0.0"},
			map[string]float64{"retried": 2, "sent": 1}, 3 * time.Second},
		{"429 that says when", []reply{status(429, "Retry-After", "30")}, []string{"2.0.0", "2.0.0"},
			map[string]float64{"retried": 1, "sent": 1}, 30 * time.Second},
		{"429 that wants too much", []reply{status(429, "Retry-After", "86400")}, []string{"2.0.0", "2.0.0"},
			map[string]float64{"retried": 1, "sent": 1}, longestPause},
		{"408", []reply{status(408)}, []string{"2.0.0", "2.0.0"}, map[string]float64{"retried": 1, "sent": 1}, time.Second},
		{"400", []reply{status(400)}, []string{"2.0.0"}, map[string]float64{"refused": 1}, 0},
		{"of the way: 401, 403, 404, 407, 409", []reply{status(401), status(403), status(404), status(407), status(409)},
			slices.Repeat([]string{"2.0.0"}, 6), map[string]float64{"retried": 5, "sent": 1}, 31 * time.Second},
		{"of the way: 402, 405, 421, 423, 425", []reply{status(402), status(405), status(421), status(423), status(425)},
			slices.Repeat([]string{"2.0.0"}, 6), map[string]float64{"retried": 5, "sent": 1}, 31 * time.Second},
		{"of the way: 101, 426, 451, 600", []reply{status(101), status(426), status(451), status(600)},
			slices.Repeat([]string{"2.0.0"}, 5), map[string]float64{"retried": 4, "sent": 1}, 15 * time.Second},
		{"in doubt: 410, 418, 499", []reply{status(410), status(418), status(499)},
			slices.Repeat([]string{"2.0.0"}, 4), map[string]float64{"retried": 3, "sent": 1}, 7 * time.Second},
		{"in doubt for too long", slices.Repeat([]reply{status(409)}, 16),
			slices.Repeat([]string{"2.0.0"}, 16), map[string]float64{"retried": 15, "refused": 1}, 603 * time.Second},
		{"of the samples: 413", []reply{status(413)}, []string{"2.0.0"}, map[string]float64{"refused": 1}, 0},
		{"of the samples: 422", []reply{status(422)}, []string{"2.0.0"}, map[string]float64{"refused": 1}, 0},
		{"a page that wants somebody to sign in", []reply{status(200, "Content-Type", "text/html; charset=utf-8")}, []string{"2.0.0", "2.0.0"},
			map[string]float64{"retried": 1, "sent": 1}, time.Second},
		{"a page, of a receiver that says nothing of samples", []reply{status(200), status(200, "Content-Type", "text/html")},
			[]string{"2.0.0", "0.1.0", "0.1.0"}, map[string]float64{"retried": 1, "sent": 1}, time.Second},
		{"503 that wants years", []reply{status(503, "Retry-After", "99999999")}, []string{"2.0.0", "2.0.0"},
			map[string]float64{"retried": 1, "sent": 1}, 2 * time.Minute},
		{"415", []reply{status(415)}, []string{"2.0.0", "0.1.0"}, map[string]float64{"sent": 1}, 0},
		{"a redirect on the same host", []reply{status(308, "Location", "/api/v1/push")}, []string{"2.0.0", "2.0.0"},
			map[string]float64{"sent": 1}, 0},
		{"a redirect to another host", []reply{status(307, "Location", "http://127.0.0.1/")}, []string{"2.0.0", "2.0.0"},
			map[string]float64{"retried": 1, "sent": 1}, time.Second},
		{"redirects without a method", []reply{status(301, "Location", "/a"), status(302, "Location", "https://receiver.test/a"), status(303, "Location", "/b")},
			[]string{"2.0.0", "2.0.0", "2.0.0", "2.0.0"}, map[string]float64{"retried": 3, "sent": 1}, 7 * time.Second},
		{"a redirect that leads nowhere", []reply{status(307)}, []string{"2.0.0", "2.0.0"}, map[string]float64{"retried": 1, "sent": 1}, time.Second},
		{"redirects in a circle", slices.Repeat([]reply{status(307, "Location", "/a")}, 6), slices.Repeat([]string{"2.0.0"}, 7),
			map[string]float64{"retried": 1, "sent": 1}, time.Second},
		{"slow", []reply{slow(requestTimeout - time.Second)}, []string{"2.0.0"}, map[string]float64{"sent": 1}, 0},
		{"too slow", []reply{slow(requestTimeout + time.Second)}, []string{"2.0.0", "2.0.0"},
			map[string]float64{"retried": 1, "sent": 1}, requestTimeout + time.Second},
		{"a connection that breaks", []reply{broken}, []string{"2.0.0", "2.0.0"}, map[string]float64{"retried": 1, "sent": 1}, time.Second},
		{"204 without a word of samples", []reply{status(204)}, []string{"2.0.0", "0.1.0"}, map[string]float64{"sent": 1}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{answers: test.answers}
				w := newTestWriter(t, Options{Client: &http.Client{Transport: r}})
				w.sample(time.Now())
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { w.senders[0].run(ctx) })
				began := time.Now()
				time.Sleep(time.Hour)
				cancel()
				running.Wait()
				if !slices.Equal(r.contents, test.versions) {
					t.Errorf("versions of the tries: got %q, want %q", r.contents, test.versions)
				}
				if took := r.times[len(r.times)-1].Sub(began); took != test.took {
					t.Errorf("got the last try after %v, want %v", took, test.took)
				}
				counted := make(map[string]float64)
				for _, outcome := range []string{outcomeSent, outcomeRetried, outcomeRefused, outcomeDropped} {
					if n := testutil.ToFloat64(w.counts.requests.WithLabelValues(w.senders[0].name, outcome)); n > 0 {
						counted[outcome] = n
					}
				}
				if diff := cmp.Diff(test.outcomes, counted); diff != "" {
					t.Errorf("outcomes (-want +got):\n%s", diff)
				}
				if size := w.senders[0].spool.size(); size != 0 {
					t.Errorf("got %d bytes that wait, want none", size)
				}
			})
		})
	}
}

// A receiver that refuses samples by a status that could be of the way, as Thanos does by 409,
// keeps the others waiting for ten minutes once, and no more when it has taken one after that.
func TestDoubts(t *testing.T) {
	var d doubt
	now := time.Now()
	for _, step := range []struct {
		after time.Duration
		taken bool
		want  bool
	}{
		{after: 0}, {after: doubtTime - 1}, {taken: true}, // of the way
		{after: time.Hour}, {after: doubtTime - 1}, {after: 1, want: true}, {after: 1, want: true}, // of the way for long, or not
		{taken: true}, {after: 1, want: true}, {taken: true}, {after: 1, want: true}, // not
	} {
		now = now.Add(step.after)
		if step.taken {
			d.taken()
		} else if got := d.lasts(now); got != step.want {
			t.Errorf("%+v: got %v", step, got)
		}
	}
}

// A request goes to its receiver alone, whatever that answers, and as a POST; the log says
// once where it should have gone.
func TestRedirectsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		for _, to := range []string{"http://127.0.0.1:10250/run", "https://other.test/", "http://receiver.test:2379/", "ftp://receiver.test/"} {
			r.answers = append(r.answers, status(307, "Location", to))
		}
		r.answers = append(r.answers, status(302, "Location", "/login"), status(308, "Location", "https://receiver.test/push"))
		var log bytes.Buffer
		w := newTestWriter(t, Options{
			Client: &http.Client{Transport: r}, Headers: map[string]string{"X-Scope-OrgID": "secret"},
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		w.sample(time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		w.senders[0].run(ctx)
		const own = "POST http://user:xxxxx@receiver.test/api/v1/write"
		if diff := cmp.Diff(append(slices.Repeat([]string{own}, 6), "POST https://receiver.test/push"), r.asked); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
		if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "127.0.0.1:10250/run") || strings.Contains(got, "secret") {
			t.Errorf("got %s, want one warning of the first redirect", got)
		}
	})
}

// A receiver that refuses everything for an hour, one that is away for as long and a full
// disk are a line each, and one at the end.
func TestOutagesAreLoggedOnce(t *testing.T) {
	for _, test := range []struct {
		name, wrong, over string
		answer            reply
		full              bool
	}{
		{"refuses", "a request is refused and given up", "requests are taken again", status(http.StatusBadRequest), false},
		{"is away", "remote write fails, trying again", "remote write works again", status(http.StatusServiceUnavailable), false},
		{"full disk", "keep for remote write", "requests can be kept again", status(http.StatusNoContent, writtenHeader, "1"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, log := &receiver{answers: slices.Repeat([]reply{test.answer}, 10_000)}, new(servertest.Log)
				w := newTestWriter(t, Options{Client: &http.Client{Transport: r}, Logger: slog.New(slog.NewTextHandler(log, nil))})
				folder := w.senders[0].spool.folder
				if test.full {
					w.senders[0].spool.folder = closed(t)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- w.Run(ctx) }()
				time.Sleep(time.Hour)
				r.mu.Lock()
				tries := len(r.times)
				r.answers = nil
				r.mu.Unlock()
				w.senders[0].spool.mu.Lock()
				w.senders[0].spool.folder = folder
				w.senders[0].spool.mu.Unlock()
				if tries < 50 && !test.full {
					t.Errorf("got %d tries in an hour, want more", tries)
				}
				time.Sleep(2 * time.Minute)
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				text := log.String()
				if strings.Count(text, test.wrong) != 1 || strings.Count(text, test.over) != 1 || log.Lines() != 2 {
					t.Errorf("got the log below, want that it begins once and ends once:\n%.3000s", text)
				}
			})
		})
	}
}

// A request that cannot be read, as the process has no descriptor left, is sent when it has.
func TestSpoolWithoutADescriptor(t *testing.T) {
	w := newTestWriter(t, Options{Client: &http.Client{Transport: &receiver{}}})
	w.sample(time.Now())
	s := w.senders[0]
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := s.sendFirst(t.Context())
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.EMFILE) || s.spool.size() == 0 {
		t.Errorf("got %v and %d bytes that wait, want %v and the request", err, s.spool.size(), unix.EMFILE)
	}
	if _, err := s.sendFirst(t.Context()); err != nil || s.spool.size() != 0 {
		t.Errorf("got %v and %d bytes that wait, want none", err, s.spool.size())
	}
}

// closed is a directory that nothing can be written to, by root neither.
func closed(t *testing.T) *owned.Directory {
	t.Helper()
	directory, err := owned.Open(filepath.Join(t.TempDir(), "closed"), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if err := directory.Close(); err != nil {
		t.Fatal(err)
	}
	return directory
}

func newTestWriter(t *testing.T, o Options) *Writer {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "one"}, func() float64 { return 1 }))
	if o.Gatherer == nil {
		o.Gatherer = registry
	}
	if o.URLs == nil {
		o.URLs = []string{"http://user:secret@receiver.test/api/v1/write"}
	}
	o.Spool = t.TempDir()
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	w, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// At the end all series end, and what the receiver does not take then waits for the next
// process.
func TestEndAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		o := Options{Client: &http.Client{Transport: r}}
		w := newTestWriter(t, o)
		run := func(w *Writer, lasts time.Duration) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), lasts)
			defer cancel()
			if err := w.Run(ctx); err != nil {
				t.Fatal(err)
			}
		}
		run(w, 31*time.Second)
		if got, want := texts(r.requests), 2*4; len(got) != want || !strings.Contains(strings.Join(got, "\n"), "ends") {
			t.Errorf("got %q, want three samples and an end, of up as well", got)
		}
		r.answers = slices.Repeat([]reply{status(500)}, 100)
		folder := w.options.Spool
		run(w, 31*time.Second)
		r.mu.Lock()
		r.answers, r.requests = nil, nil
		r.mu.Unlock()
		o.Gatherer, o.URLs, o.Spool, o.Logger = w.options.Gatherer, w.options.URLs, folder, w.options.Logger
		next, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		run(next, time.Second)
		if got := texts(r.requests); len(got) != 2*(4+2) {
			t.Errorf("got %q, want what the last process could not send, three samples and an end, and two of this one, of up as well", got)
		}
	})
}

// What a crash of the node left without its content is given up, and stops nothing, whatever
// the receiver says to it.
func TestDamagedSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		w := newTestWriter(t, Options{Client: &http.Client{Transport: r}})
		for range 3 {
			w.sample(time.Now())
		}
		folder := folderOf(t, w)
		whole, err := os.ReadFile(filepath.Join(folder, spoolName(0)))
		if err != nil {
			t.Fatal(err)
		}
		for number, content := range [][]byte{nil, whole[:len(whole)-1], make([]byte, len(whole))} {
			if err := os.WriteFile(filepath.Join(folder, spoolName(uint64(number))), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		o := w.options
		if w, err = New(o); err != nil {
			t.Fatal(err)
		}
		w.sample(time.Now())
		w.senders[0].flush(t.Context())
		if got := outcome(w, outcomeRefused); got != 3 || len(r.times) != 1 || len(r.requests) != 1 {
			t.Errorf("got %v given up, %d sent, %d of them sound, want 3, 1 and 1", got, len(r.times), len(r.requests))
		}
	})
}

// folderOf is the folder of the only receiver's requests.
func folderOf(t *testing.T, w *Writer) string {
	t.Helper()
	folders, err := filepath.Glob(filepath.Join(w.options.Spool, "*"))
	if err != nil || len(folders) != 1 {
		t.Fatalf("got folders %q, %v, want one", folders, err)
	}
	return folders[0]
}

func TestNamesHideSecrets(t *testing.T) {
	w := newTestWriter(t, Options{})
	if name := w.senders[0].name; strings.Contains(name, "secret") {
		t.Errorf("got %q", name)
	}
}

func TestURLs(t *testing.T) {
	for _, address := range []string{"", "receiver:9090", "ftp://receiver/", "http://", "http://a b/"} {
		if _, err := New(Options{URLs: []string{address}, Spool: t.TempDir()}); err == nil {
			t.Errorf("%q: got no error", address)
		}
	}
	for _, address := range []string{"http://a:secret@b:c/", "ftp://a:secret@b/"} {
		if _, err := New(Options{URLs: []string{address}, Spool: t.TempDir()}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v, want an error that hides the password", address, err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "soon": 0, "Sun, 29 Nov 2026 12:00:09 GMT": 9 * time.Second,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: got %v, want %v", header, got, want)
		}
	}
}

// The writer's own metrics are as Prometheus wants them, and in the reference.
func TestMetricsAreDocumented(t *testing.T) {
	w := newTestWriter(t, Options{})
	registry := prometheus.NewRegistry()
	registry.MustRegister(w)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) != 0 {
		t.Errorf("got %v, %v, want no problem", problems, err)
	}
	reference, err := os.ReadFile("../../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 3 {
		t.Fatalf("got %d families, %v, want 3", len(families), err)
	}
	for _, family := range families {
		if !strings.Contains(string(reference), "`"+family.GetName()+"`") {
			t.Errorf("docs/METRICS.md: got no %s, want it", family.GetName())
		}
	}
}

// BenchmarkSample takes a sample of 10,000 series, and keeps it for one receiver that
// takes it at once.
func BenchmarkSample(b *testing.B) {
	registry := prometheus.NewRegistry()
	series := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "podmeter_flow_transmit_bytes_total"},
		[]string{"namespace", "pod", "container", "workload", "peer_kind", "peer_namespace", "peer", "locality", "protocol"})
	for n := range 10_000 {
		series.WithLabelValues("shop", fmt.Sprintf("web-7d4b9c6f5-%05d", n/20), "main", "web", "pod", "shop", fmt.Sprint("peer-", n%20), "same_zone", "tcp").
			Add(float64(n) * 1234.0)
	}
	registry.MustRegister(series)
	w, err := New(Options{URLs: []string{"http://receiver.test/w"}, Client: &http.Client{Transport: &receiver{}}, Gatherer: registry,
		Labels: map[string]string{"job": "podmeter", "instance": "node-a", "node": "node-a"}, Spool: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		b.Fatal(err)
	}
	w.options.Gatherer = prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil })
	b.ReportAllocs()
	for b.Loop() {
		w.sample(time.Now())
		w.senders[0].flush(b.Context())
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "ms/sample")
}
