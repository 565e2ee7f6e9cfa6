// SPDX-License-Identifier: Apache-2.0

// Package promtest runs Prometheus for tests, any of two: Debian's, which speaks remote
// write 1.0, and a current one. A test that lacks one is skipped with a reason, and fails
// under REQUIRE_PROMETHEUS=1; one that starts it is skipped under -short. A [Server] ends with its test; its methods may be called from
// any goroutine but Start and Stop, which are one's at a time.
package promtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/tools"
	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

const (
	require = "REQUIRE_PROMETHEUS"
	current = "PODMETER_PROMETHEUS"
	// patience is how long a start or an answer may take.
	patience = time.Minute
)

// Debian returns the path of the installed Prometheus.
func Debian(tb testing.TB) string {
	tb.Helper()
	return installed(tb, "prometheus")
}

// Promtool returns the path of the installed promtool.
func Promtool(tb testing.TB) string {
	tb.Helper()
	return installed(tb, "promtool")
}

// Current returns the path of the one that `make tools` builds, or of another that the
// environment names.
func Current(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv(current); path != "" {
		return path
	}
	folder, err := tools.Find("prometheus")
	if err != nil {
		lacks(tb, err.Error())
	}
	return filepath.Join(folder, "prometheus")
}

func installed(tb testing.TB, command string) string {
	tb.Helper()
	path, err := exec.LookPath(command)
	if err != nil {
		lacks(tb, command+" is not installed (package prometheus)")
	}
	return path
}

func lacks(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv(require) == "1" {
		tb.Fatalf("%s=1, and no Prometheus: %s", require, what)
	}
	tb.Skip("needs Prometheus: " + what)
}

// Server is a Prometheus and its data.
type Server struct {
	// URL is where it is, with the same port after each start.
	URL string

	tb      testing.TB
	binary  string
	args    []string
	folder  string
	address string
	query   promv1.API
	process *exec.Cmd
	said    chan struct{} // closed when its log has ended
}

// New starts a Prometheus of a configuration, at a port that the kernel chooses.
func New(tb testing.TB, binary, config string, args ...string) *Server {
	tb.Helper()
	effort.Long(tb, "starts a Prometheus")
	s := &Server{tb: tb, binary: binary, args: args, folder: tb.TempDir(), address: "127.0.0.1:0"}
	if err := os.WriteFile(s.path("prometheus.yml"), []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Stop(syscall.SIGKILL) }) // it keeps nothing
	s.Start()
	client, err := api.NewClient(api.Config{Address: s.URL})
	if err != nil {
		tb.Fatal(err)
	}
	s.query = promv1.NewAPI(client)
	return s
}

func (s *Server) path(name string) string { return filepath.Join(s.folder, name) }

// Pid returns the number of its process.
func (s *Server) Pid() int { return s.process.Process.Pid }

// Start starts it, again after [Server.Stop], and returns when it answers queries. Its port
// may be somebody else's for a while: then it is tried again.
func (s *Server) Start() {
	s.tb.Helper()
	for deadline := time.Now().Add(patience); !s.start(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.tb.Fatal("Prometheus ended before it was ready, each time")
		}
	}
	s.URL = "http://" + s.address
}

// start reports whether it got ready.
func (s *Server) start() bool {
	s.tb.Helper()
	s.process = exec.Command(s.binary, append([]string{"--config.file", s.path("prometheus.yml"), "--storage.tsdb.path", s.path("data"),
		"--web.listen-address", s.address, "--log.level", "info"}, s.args...)...)
	log, err := s.process.StderrPipe()
	if err != nil {
		s.tb.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		s.process = nil
		s.tb.Fatal(err)
	}
	started, ended := make(chan string, 1), make(chan struct{})
	s.said = ended
	go func() {
		defer close(ended)
		follow(log, started)
	}()
	select {
	case s.address = <-started:
		return true
	case <-ended:
		s.Stop(syscall.SIGKILL)
	case <-time.After(patience):
		s.tb.Fatal("Prometheus does not get ready")
	}
	return false
}

var listening = regexp.MustCompile(`msg="Listening on".* address=(\S+)`)

// follow reads the log to its end, lest the pipe fills up, and sends the address when both
// that and readiness were told.
func follow(log io.Reader, started chan<- string) {
	address, ready := "", false
	defer io.Copy(io.Discard, log) // what is behind a line that is too long
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			address = found[1]
		}
		ready = ready || strings.Contains(lines.Text(), "Server is ready to receive web requests")
		if ready && address != "" {
			select {
			case started <- address:
			default: // told already
			}
		}
	}
}

// Stop ends it by a signal, or kills it when that does not do. One that has ended stays so.
func (s *Server) Stop(signal os.Signal) {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(signal) // it may have ended
	select {
	case <-s.said:
	case <-time.After(patience):
		s.tb.Errorf("Prometheus does not end by the signal %v", signal)
		_ = s.process.Process.Kill()
		<-s.said
	}
	_ = s.process.Wait() // by the signal, as it says
	s.process = nil
}

// Query evaluates an instant query of a vector.
func (s *Server) Query(query string) (model.Vector, error) {
	ctx, cancel := context.WithTimeout(s.tb.Context(), patience)
	defer cancel()
	value, _, _, err := s.query.Query(ctx, query, time.Now())
	if err != nil {
		return nil, err
	}
	vector, ok := value.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("got a %s, want a vector", value.Type())
	}
	return vector, nil
}

// Await evaluates a query until its first value is this; "none" for no answer.
func (s *Server) Await(query, want string) {
	s.tb.Helper()
	got := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		vector, err := s.Query(query)
		switch {
		case err != nil:
			got = err.Error()
		case len(vector) == 0:
			got = "none"
		default:
			got = fmt.Sprint(vector[0].Value)
		}
		if got == want {
			return
		}
	}
	s.tb.Fatalf("%s: got %s, want %s", query, got, want)
}
