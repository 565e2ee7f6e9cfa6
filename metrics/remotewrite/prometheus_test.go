// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
)

// server is a Prometheus that takes remote write.
type server struct {
	t       *testing.T
	folder  string
	address string
	process *exec.Cmd
	query   promv1.API
}

var listening = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// start starts it at any free port, or at that of the last time.
func (s *server) start() {
	s.t.Helper()
	if s.address == "" {
		s.address = "127.0.0.1:0"
	}
	config := filepath.Join(s.folder, "prometheus.yml")
	if err := os.WriteFile(config, []byte("storage: {tsdb: {out_of_order_time_window: 1h}}\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.process = exec.Command("prometheus", "--config.file", config, "--storage.tsdb.path", filepath.Join(s.folder, "data"),
		"--web.listen-address", s.address, "--web.enable-remote-write-receiver", "--log.level", "info")
	log, err := s.process.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	addresses := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			if found := listening.FindStringSubmatch(lines.Text()); found != nil {
				addresses <- found[1]
			}
		}
	}()
	select {
	case s.address = <-addresses:
	case <-time.After(30 * time.Second):
		s.t.Fatal("Prometheus does not listen")
	}
	client, err := api.NewClient(api.Config{Address: "http://" + s.address})
	if err != nil {
		s.t.Fatal(err)
	}
	s.query = promv1.NewAPI(client)
}

func (s *server) stop(signal os.Signal) {
	if s.process != nil {
		_ = s.process.Process.Signal(signal)
		_ = s.process.Wait()
		s.process = nil
	}
}

func newServer(t *testing.T) *server {
	t.Helper()
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Skip("needs Prometheus: apt-get install prometheus")
	}
	s := &server{t: t, folder: t.TempDir()}
	s.start()
	t.Cleanup(func() { s.stop(syscall.SIGKILL) })
	return s
}

// await evaluates a query until it has this value; "none" for no answer.
func (s *server) await(query, want string) {
	s.t.Helper()
	got := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		value, _, _, err := s.query.Query(s.t.Context(), query, time.Now())
		if err != nil {
			got = err.Error()
			continue
		}
		got = "none"
		if vector, ok := value.(model.Vector); ok && len(vector) > 0 {
			got = fmt.Sprint(vector[0].Value)
		}
		if got == want {
			return
		}
	}
	s.t.Fatalf("%s: got %s, want %s", query, got, want)
}

// Debian's Prometheus, which knows protocol 1.0, has what was gathered, with the labels of
// a scrape; a series that is no more ends; an outage in the middle, by SIGKILL, costs no
// sample.
func TestWithPrometheus(t *testing.T) {
	s := newServer(t)
	registry := prometheus.NewRegistry()
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bytes_total"}, []string{"pod"})
	rounds := prometheus.NewCounter(prometheus.CounterOpts{Name: "rounds_total"})
	registry.MustRegister(bytes, rounds)
	bytes.WithLabelValues("web").Add(12345678901)
	bytes.WithLabelValues("db").Add(1)
	// One more at each sample, so that a lost one shows.
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sampled"}, func() float64 { rounds.Inc(); return 1 }))
	w := newTestWriter(t, Options{
		URLs: []string{"http://" + s.address + "/api/v1/write"}, Gatherer: registry, Interval: 100 * time.Millisecond,
		Labels: map[string]string{"job": "podmeter", "instance": "node-a", "node": "node-a", "cluster": "c"},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	defer running.Wait()
	defer cancel()

	s.await(`bytes_total{pod="web", job="podmeter", instance="node-a", node="node-a", cluster="c"}`, "12345678901")
	bytes.DeleteLabelValues("db")
	s.await(`bytes_total{pod="db"}`, "none")
	s.await(`count(bytes_total)`, "1")

	s.stop(syscall.SIGKILL)
	time.Sleep(3 * time.Second) // as long as the outage is to last
	s.start()
	bytes.WithLabelValues("web").Add(99)
	s.await(`bytes_total{pod="web"}`, "12345679000")
	cancel()
	running.Wait()
	s.await(`count(bytes_total or sampled)`, "none") // all have ended
	// Each sample is there, and counters never went down.
	s.await(`resets(bytes_total{pod="web"}[5m])`, "0")
	s.await(fmt.Sprintf(`count_over_time(rounds_total[5m]) == bool %v`, value(t, rounds)), "1")
}

func value(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}
