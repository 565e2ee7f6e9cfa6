// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
)

const (
	scrapeInterval = time.Second
	// scrapeTimeout and the time after which an attack is first scraped are less than it
	// lasts, so that an agent that answers nobody meanwhile misses one.
	scrapeTimeout, scrapeAfter = 1500 * time.Millisecond, 300 * time.Millisecond
	// shortSpare is how many of the two or three scrapes of a short attack may be missed, as
	// the agent shares the CPUs with other tests then. In the long form none is spared.
	shortSpare = 1
)

// scraper asks for /metrics at 1 Hz, each time by a new connection, from an address that
// nobody else has.
type scraper struct {
	client  http.Client
	request func(context.Context) (*http.Request, error)
	stop    context.CancelFunc
	restart chan struct{}
	asking  sync.WaitGroup

	mu   sync.Mutex
	all  []*scrape
	most float64 // of the victim's bytes, which never go down
}

// scrape is one answer, or none.
type scrape struct {
	began time.Time
	ended bool
	took  time.Duration
	bytes int
	err   error
}

// newScraper scrapes until the test ends. change is what it needs for TLS and a password.
func newScraper(t *testing.T, w *world, scheme string, change func(*http.Transport, *http.Request)) *scraper {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s := &scraper{stop: stop, restart: make(chan struct{})}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: dialFrom(w.scraper, "")}
	s.client = http.Client{Transport: transport, Timeout: scrapeTimeout}
	s.request = func(ctx context.Context) (*http.Request, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+scraperNetwork+".1:"+port+"/metrics", nil)
		if err == nil && change != nil {
			change(transport, r)
		}
		return r, err
	}
	if _, err := s.request(ctx); err != nil { // changes the transport before it is used
		t.Fatal(err)
	}
	s.asking.Go(func() { s.run(ctx) })
	t.Cleanup(func() {
		stop()
		s.asking.Wait()
	})
	return s
}

func (s *scraper) run(ctx context.Context) {
	ticker := time.NewTicker(scrapeInterval)
	defer ticker.Stop()
	for {
		s.asking.Go(func() { s.once(ctx) })
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.restart:
			ticker.Reset(scrapeInterval)
		}
	}
}

// attacked begins a scrape when an attack has come up, and from then on one a second.
func (s *scraper) attacked(ctx context.Context) {
	sleep(ctx, scrapeAfter)
	s.restart <- struct{}{}
}

var victimBytes = regexp.MustCompile(`(?m)^podmeter_pod_transmit_bytes_total\{[^}]*pod="` + victimName + `"[^}]*\} (\S+)`)

func (s *scraper) once(ctx context.Context) {
	one := &scrape{began: time.Now()}
	s.mu.Lock()
	before := s.most
	s.all = append(s.all, one)
	s.mu.Unlock()
	text, err := s.ask(ctx)
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one.ended, one.took, one.bytes, one.err = true, time.Since(one.began), len(text), err
	if found := victimBytes.FindSubmatch(text); found != nil {
		value, _ := strconv.ParseFloat(string(found[1]), 64)
		if value < before {
			one.err = fmt.Errorf("the victim's bytes fell from %v to %v", before, value)
		}
		s.most = max(s.most, value)
	} else if err == nil {
		one.err = fmt.Errorf("%d bytes without the victim", len(text))
	}
}

func (s *scraper) ask(ctx context.Context) ([]byte, error) {
	request, err := s.request(ctx)
	if err != nil {
		return nil, err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s", response.Status)
	}
	return text, err
}

// between returns the scrapes that began in a time, when all of them have ended.
func (s *scraper) between(from, to time.Time) (all []scrape) {
	_ = ktest.Eventually(ktest.Patience, "the scrapes have ended", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		all = all[:0]
		for _, one := range s.all {
			if !one.began.Before(from) && one.began.Before(to) {
				all = append(all, *one)
			}
		}
		return !slices.ContainsFunc(all, func(one scrape) bool { return !one.ended })
	})
	return all
}

// check wants no more than a share of the scrapes to be missed.
func (s *scraper) check(t *testing.T, from, to time.Time, share float64) (summary string) {
	t.Helper()
	all := s.between(from, to)
	missed, slowest, size := 0, time.Duration(0), 0
	var last error
	for _, one := range all {
		if one.err != nil {
			missed, last = missed+1, one.err
		}
		slowest, size = max(slowest, one.took), max(size, one.bytes)
	}
	if want := int(to.Sub(from)/scrapeInterval) - 1; len(all) < want {
		t.Errorf("got %d scrapes, want %d", len(all), want)
	}
	allowed := int(share * float64(len(all)))
	if !effort.Stressed() {
		allowed = max(allowed, shortSpare)
	}
	if missed > allowed {
		t.Errorf("missed %d of %d scrapes, want at most %d; the last: %v", missed, len(all), allowed, last)
	}
	return fmt.Sprintf("missed %d of %d scrapes, the slowest took %d ms, %d kB", missed, len(all), slowest.Milliseconds(), size>>10)
}

// dialFrom dials in a namespace, from an address if it is not empty.
func dialFrom(in namespace, source string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = in.Do(func() (err error) {
			conn, err = dialer(source).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}

func dialer(source string) *net.Dialer {
	d := &net.Dialer{Timeout: scrapeTimeout, KeepAlive: -1}
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	return d
}

// namespace is [ktest.Namespace], or a pod.
type namespace interface{ Do(func() error) error }
