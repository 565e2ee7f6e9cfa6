// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/geo"
	"github.com/podmeter/podmeter/metrics"
)

// noon is the end of the tests' first epoch.
var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

// source gives what a test puts there.
type source struct {
	mu       sync.Mutex
	snapshot *flows.Snapshot
	agent    metrics.Agent
	err      error
	asked    int
}

func (s *source) Snapshot(context.Context) (*flows.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.snapshot, s.err
}

func (s *source) Agent() metrics.Agent { return s.agent }

func (s *source) put(snapshot *flows.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshot = snapshot
}

func newPage(s metrics.Source) *Page {
	return New(Options{
		Source: s, Version: "1.2.3", Node: func() string { return "node-a" }, Databases: fakeDatabases, Logger: slog.New(slog.DiscardHandler),
	})
}

func request(p *Page, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

// ask returns the state as a browser gets it.
func ask(tb testing.TB, p *Page) state {
	tb.Helper()
	w := request(p, http.MethodGet, "/page/state")
	var s state
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || w.Code != http.StatusOK {
		tb.Fatalf("state: got %d, %v: %s", w.Code, err, w.Body)
	}
	return s
}

// snapshotAt is one at an end, seconds after noon.
func snapshotAt(seconds int, more ...func(*flows.Snapshot)) *flows.Snapshot {
	s := &flows.Snapshot{End: noon.Add(time.Duration(seconds) * time.Second)}
	for _, add := range more {
		add(s)
	}
	return s
}

func series[L any](namespace, pod string, labels L, sent, received uint64) flows.Series[L] {
	return flows.Series[L]{
		Namespace: namespace, Pod: pod, Labels: labels,
		Counters: [flows.Directions]flows.Counters{{Bytes: sent, Packets: 1}, {Bytes: received, Packets: 1}},
	}
}

func withPod(namespace, pod string, sent, received uint64) func(*flows.Snapshot) {
	return func(s *flows.Snapshot) {
		s.Pods = append(s.Pods, series(namespace, pod, flows.NoLabels{}, sent, received))
	}
}

// withFlow adds a row of a workload whose pod has its name and -0.
func withFlow(namespace, workload string, peer flows.FlowLabels, sent, received uint64) func(*flows.Snapshot) {
	return func(s *flows.Snapshot) {
		peer.Workload = flows.Workload{Type: "deployment", Name: workload}
		s.Flows = append(s.Flows, series(namespace, workload+"-0", peer, sent, received))
	}
}

func withPlace(namespace, pod string, labels flows.ExternalLabels, sent, received uint64) func(*flows.Snapshot) {
	return func(s *flows.Snapshot) {
		s.Externals = append(s.Externals, series(namespace, pod, labels, sent, received))
	}
}

func toPod(namespace, name string, locality flows.Locality) flows.FlowLabels {
	return flows.FlowLabels{PeerKind: flows.PeerPod, PeerNamespace: namespace, Peer: name, Locality: locality, Protocol: flows.ProtoTCP}
}

var toInternet = flows.FlowLabels{PeerKind: flows.PeerExternal, Locality: flows.LocalityExternal, Protocol: flows.ProtoTCP}

// many is a snapshot of n flow rows, to 200 peers from the pods of ten workloads each.
func many(n, seconds int) *flows.Snapshot {
	s := snapshotAt(seconds)
	for pod := range max(1, n/200) {
		withPod("default", fmt.Sprint("web-", pod), uint64(n)*1e6, 1e6)(s)
	}
	for i := range n {
		peer := toPod("data", fmt.Sprint("database-", i%200), flows.LocalitySameZone)
		withFlow("default", fmt.Sprint("web-", i/200), peer, 1e6, 1e5)(s)
		if i%2 == 0 {
			withPlace("default", fmt.Sprint("web-", i/200), flows.ExternalLabels{Country: "CH", ASN: fmt.Sprint(i % 300)}, 1e5, 1e4)(s)
		}
	}
	return s
}

// fakeDatabases are two of one maker, who wants to be named.
func fakeDatabases() []geo.Info {
	return []geo.Info{{Path: "dbip-city-lite.mmdb"}, {Path: "dbip-asn-lite.mmdb"}, {Path: "own.mmdb"}}
}
