// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/ktest"
	remote "github.com/prometheus/client_golang/exp/api/remote/genproto/v2"
	"google.golang.org/protobuf/proto"
)

// receiver takes remote write, and keeps the last value of each series of the pod.
type receiver struct {
	mu     sync.Mutex
	away   bool
	counts map[string]float64 // by family
	labels map[string]string
	lower  int // values that were less than the one before
}

// newReceiver serves one in a network namespace, until the test ends, and returns its URL.
func newReceiver(t *testing.T, node *ktest.Namespace) (r *receiver, url string) {
	t.Helper()
	var listener net.Listener
	err := node.Do(func() (err error) {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r = &receiver{counts: make(map[string]float64)}
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve(listener) }()
	return r, "http://" + listener.Addr().String() + "/api/v1/write"
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(request.Body)
	if err == nil && !r.away {
		body, err = snappy.Decode(nil, body)
	}
	var got remote.Request
	if err == nil && !r.away {
		err = proto.Unmarshal(body, &got)
	}
	if r.away || err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	for _, s := range got.Timeseries {
		r.take(got.Symbols, s)
	}
	w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", "1")
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) take(symbols []string, s *remote.TimeSeries) {
	labels := make(map[string]string)
	for n := 0; n+1 < len(s.LabelsRefs); n += 2 {
		labels[symbols[s.LabelsRefs[n]]] = symbols[s.LabelsRefs[n+1]]
	}
	if labels["pod"] != "veth0" {
		return
	}
	r.labels = labels
	for _, sample := range s.Samples {
		if sample.Value != sample.Value { // NaN: it ends
			continue
		}
		if sample.Value < r.counts[labels["__name__"]] {
			r.lower++
		}
		r.counts[labels["__name__"]] = sample.Value
	}
}

func (r *receiver) set(away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = away
}

// What a receiver of remote write gets is what a scrape shows, in spite of an outage and of
// a restart in its middle.
func TestRemoteWrite(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r, url := newReceiver(t, h.node)
	flags := h.flags("--remote-write-url", url, "--remote-write-interval", "1s",
		"--remote-write-labels", "cluster=c", "--remote-write-spool", filepath.Join(h.dir, "spool"), "--node-name", "node-a")
	const family = "podmeter_pod_transmit_bytes_total"
	written := func(p *process) {
		t.Helper()
		h.await(t, p, "what is scraped, written", func(*agent.Status) bool {
			want := h.value(t, family, "pod", "veth0")
			r.mu.Lock()
			defer r.mu.Unlock()
			return want >= 4000 && r.counts[family] == want
		})
	}
	p := start(t, h.node, nil, flags...)
	h.awaitAttached(t, p)
	h.send(t, 40)
	written(p)
	r.mu.Lock()
	for name, want := range map[string]string{"job": "podmeter", "instance": "node-a", "node": "node-a", "cluster": "c"} {
		if got := r.labels[name]; got != want {
			t.Errorf("label %s: got %q, want %q", name, got, want)
		}
	}
	r.mu.Unlock()

	r.set(true)
	h.send(t, 30)
	p.terminate(t)
	h.send(t, 20)
	p = start(t, h.node, nil, flags...)
	h.awaitAttached(t, p)
	r.set(false)
	h.send(t, 10)
	written(p)
	p.terminate(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lower > 0 {
		t.Errorf("got %d values that were less than the one before", r.lower)
	}
}
