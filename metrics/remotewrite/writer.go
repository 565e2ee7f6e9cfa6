// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/podmeter/podmeter/internal/ratelog"
	"github.com/podmeter/podmeter/internal/redirect"
	"github.com/podmeter/podmeter/internal/secret"
	remote "github.com/prometheus/client_golang/exp/api/remote/genproto/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

const (
	defaultInterval   = 15 * time.Second
	defaultSpoolLimit = 256 << 20
	// requestTimeout is how long a receiver may take to answer.
	requestTimeout = 30 * time.Second
	// flushTime is how long the end may take.
	flushTime = 5 * time.Second
)

// Options are what a [Writer] needs.
type Options struct {
	// URLs are the receivers.
	URLs []string
	// Client authenticates and checks certificates; http.DefaultClient if nil.
	Client *http.Client
	// Headers are sent with each request.
	Headers map[string]string
	// Gatherer gives the metrics.
	Gatherer prometheus.Gatherer
	// Labels are added to all series that have no such label.
	Labels map[string]string
	// NativeHistograms is whether these are sent too, by protocol 2.0: some receivers
	// refuse requests with one.
	NativeHistograms bool
	// Interval is the time between two samples of a series; 15 s if 0.
	Interval time.Duration
	// Spool is the folder of what waits, SpoolLimit its bytes for each receiver; 256 MiB
	// if 0.
	Spool      string
	SpoolLimit int64
	// UserAgent names the program and its version.
	UserAgent string
	Logger    *slog.Logger
}

// Writer sends metrics to receivers.
type Writer struct {
	options Options
	encoder *encoder
	senders []*sender
	counts  *counts
	log     *slog.Logger
	// unread is that metrics cannot be gathered.
	unread ratelog.Outage
	// stamped is the time of the last sample, taken when it was.
	stamped, taken time.Time
	// encoded and compressed are the last request, for their room.
	encoded, compressed []byte
}

// New opens the spools. The error names what is wrong with a URL or folder.
func New(o Options) (*Writer, error) {
	o.Interval, o.SpoolLimit = cmp.Or(o.Interval, defaultInterval), cmp.Or(o.SpoolLimit, defaultSpoolLimit)
	o.Client = cmp.Or(o.Client, http.DefaultClient)
	w := &Writer{options: o, counts: newCounts(), log: o.Logger, unread: ratelog.Outage{
		Log: o.Logger, Level: slog.LevelError, Wrong: "gather metrics for remote write", Over: "metrics can be gathered again",
	}}
	w.encoder = newEncoder(o.Labels, o.NativeHistograms, w.keep)
	for _, address := range o.URLs {
		s, err := w.newSender(address)
		if err != nil {
			return nil, err
		}
		w.senders = append(w.senders, s)
	}
	return w, nil
}

func (w *Writer) newSender(address string) (*sender, error) {
	u, err := url.Parse(address)
	if err != nil { // which has the address, and with it a password that may be in it
		return nil, errors.New("remote write: an address is no URL")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("remote write to %q: a URL is expected, such as https://prometheus.example/api/v1/write", secret.URL(u))
	}
	sum := sha256.Sum256([]byte(address))
	spool, err := openSpool(filepath.Join(w.options.Spool, hex.EncodeToString(sum[:8])), w.options.SpoolLimit)
	if err != nil {
		return nil, err
	}
	client := *w.options.Client
	client.Timeout = cmp.Or(client.Timeout, requestTimeout)
	if client.Transport == nil {
		client.Transport = http.DefaultTransport
	}
	client.Transport = secret.Transport(client.Transport)
	if client.CheckRedirect == nil { // else none is followed
		client.CheckRedirect = redirect.SameHost
	}
	s := &sender{
		name: secret.URL(u), url: address, headers: w.options.Headers, client: &client, agent: w.options.UserAgent,
		spool: spool, log: w.log, counts: w.counts,
		away: ratelog.Outage{
			Log: w.log, Level: slog.LevelWarn, Wrong: "remote write fails, trying again", Over: "remote write works again",
		},
		refusing: ratelog.Outage{
			Log: w.log, Level: slog.LevelError, Wrong: "a request is refused and given up", Over: "requests are taken again",
		},
		unkept: ratelog.Outage{
			Log: w.log, Level: slog.LevelError, Wrong: "keep for remote write", Over: "requests can be kept again",
		},
	}
	w.counts.known(s.name)
	return s, nil
}

// Run gathers and sends until ctx is done. Then it takes a last sample, ends all series, and
// sends what it can in a few seconds; the rest stays for the next process.
func (w *Writer) Run(ctx context.Context) error {
	var sending sync.WaitGroup
	for _, s := range w.senders {
		sending.Go(func() { s.run(ctx) })
	}
	ticker := time.NewTicker(w.options.Interval)
	defer ticker.Stop()
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case now := <-ticker.C:
			w.sample(now)
		}
	}
	sending.Wait()
	w.sample(time.Now())
	w.encoder.finish(w.stamped.Add(time.Millisecond))
	flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
	defer cancel()
	for _, s := range w.senders {
		sending.Go(func() { s.flush(flushing) })
	}
	sending.Wait()
	return nil
}

// sample takes a sample of each series, and says whether there was one, as a scrape does.
func (w *Writer) sample(now time.Time) {
	now = w.stamp(now)
	families, err := w.options.Gatherer.Gather()
	w.unread.Set(err)
	// Some may be there in spite of an error.
	w.encoder.encode(append(families, up(len(families) > 0)), now)
}

// stamp returns the time of a sample that is taken now: what the clock shows, unless that was
// set back. A receiver refuses what is older than it has, and rates need the time that has passed.
func (w *Writer) stamp(now time.Time) time.Time {
	stamp := now.Round(0)
	if !w.taken.IsZero() {
		if least := w.stamped.Add(now.Sub(w.taken)); stamp.Before(least) {
			stamp = least
		}
	}
	w.stamped, w.taken = stamp, now
	return stamp
}

// up is the series that Prometheus makes of each scrape.
func up(is bool) *dto.MetricFamily {
	value := map[bool]float64{true: 1}[is]
	return &dto.MetricFamily{
		Name: proto.String("up"), Help: proto.String("Whether a sample of the metrics could be taken."), Type: dto.MetricType_GAUGE.Enum(),
		Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: &value}}},
	}
}

// keep appends a request to the spool of each receiver.
func (w *Writer) keep(request *remote.Request) {
	encoded, err := proto.MarshalOptions{}.MarshalAppend(w.encoded[:0], request)
	if err != nil {
		w.log.Error("encode for remote write", "error", err)
		return
	}
	w.encoded = encoded
	w.compressed = snappy.Encode(w.compressed[:cap(w.compressed)], encoded)
	for _, s := range w.senders {
		dropped, err := s.spool.put(w.compressed)
		s.unkept.Set(err, "receiver", s.name)
		for range dropped {
			w.counts.add(s.name, outcomeDropped)
		}
	}
}
