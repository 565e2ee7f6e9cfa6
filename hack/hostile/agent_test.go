// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	// valuesFile is the chart's, which has the limit.
	valuesFile = "../../deploy/helm/podmeter/values.yaml"
	// binaryEnv is a built podmeter to attack instead of one that the test builds.
	binaryEnv = "PODMETER_BINARY"
	// patience is how long a state of the agent, or its end, may take to come.
	patience = 2 * time.Minute
)

// chartLimit is the memory limit of the chart's agent, in bytes, and its maps' part of that.
func chartLimit(t *testing.T) (limit uint64, maps string) {
	t.Helper()
	content, err := os.ReadFile(valuesFile)
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		Agent struct {
			MapMemory string `yaml:"mapMemory"`
		} `yaml:"agent"`
		Resources struct {
			MemoryBesidesMaps struct {
				Limit string `yaml:"limit"`
			} `yaml:"memoryBesidesMaps"`
			MemoryOfSockets string `yaml:"memoryOfSockets"`
		} `yaml:"resources"`
	}
	if err := yaml.Unmarshal(content, &values); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{values.Agent.MapMemory, values.Resources.MemoryBesidesMaps.Limit, values.Resources.MemoryOfSockets} {
		quantity, err := resource.ParseQuantity(text)
		if err != nil {
			t.Fatalf("%s: %q: %v", valuesFile, text, err)
		}
		limit += uint64(quantity.Value())
	}
	return limit, values.Agent.MapMemory
}

// build returns the path of podmeter.
func build(t *testing.T) (path string) {
	t.Helper()
	if path = os.Getenv(binaryEnv); path != "" {
		return path
	}
	path = filepath.Join(t.TempDir(), "podmeter")
	command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, "../../cmd/podmeter")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build podmeter: %v: %s", err, output)
	}
	return path
}

// target is the agent that is attacked.
type target struct {
	*exec.Cmd
	binary, folder, socket, pins, log string
	node                              *ktest.Namespace
	memory                            *ktest.MemoryCgroup
	limit                             uint64
	http                              http.Client // by the socket
	ended                             chan struct{}
}

// newTarget prepares an agent of a node.
func newTarget(t *testing.T, node *ktest.Namespace, binary string) *target {
	t.Helper()
	g := &target{binary: binary, folder: t.TempDir(), pins: ktest.ScratchPins(t), node: node, ended: make(chan struct{})}
	g.socket, g.log = filepath.Join(g.folder, "agent.sock"), filepath.Join(g.folder, "log")
	g.http = http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", g.socket)
		}}}
	return g
}

// start starts it in a memory cgroup of the chart's limit.
func (g *target) start(t *testing.T, flags ...string) {
	t.Helper()
	limit, maps := chartLimit(t)
	g.limit, g.memory = limit, ktest.NewMemoryCgroup(t, limit)
	command := g.memory.Command(g.binary, append([]string{"agent", "--map-memory", maps, "--pin-path", g.pins,
		"--socket", g.socket, "--state-dir", g.state()}, flags...)...)
	g.Cmd = exec.Command(command[0], command[1:]...)
	output, err := os.Create(g.log)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	g.Stdout, g.Stderr = output, output
	if err := g.node.Do(g.Start); err != nil {
		t.Fatalf("start the agent: %v", err)
	}
	go func() {
		g.Wait() // its code is looked at later
		close(g.ended)
	}()
	t.Cleanup(func() {
		g.Process.Kill()
		<-g.ended
		err := g.node.Do(func() error {
			_, err := agent.Uninstall(g.pins, g.state())
			return err
		})
		if err != nil {
			t.Errorf("uninstall: %v", err)
		}
	})
}

func (g *target) state() string { return filepath.Join(g.folder, "state") }

// alive fails unless it is the process that was started, and the limit has killed none.
func (g *target) alive(t *testing.T) {
	t.Helper()
	killed, err := g.memory.Killed()
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.ended:
		t.Fatalf("the agent has ended: %v; %d processes were killed by the limit of memory; it said:\n%s", g.ProcessState, killed, g.tail())
	default:
	}
	if killed > 0 {
		t.Fatalf("%d processes were killed by the limit of memory", killed)
	}
}

// tail is the end of what it said.
func (g *target) tail() []byte {
	text, _ := os.ReadFile(g.log)
	return text[max(0, len(text)-4000):]
}

// lines is how many lines it has logged.
func (g *target) lines(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(g.log)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte("\n"))
}

// terminate ends it in peace.
func (g *target) terminate(t *testing.T) {
	t.Helper()
	if err := g.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.ended:
	case <-time.After(patience):
		t.Fatal("the agent does not end")
	}
	if code := g.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code: got %d, want 0; the agent said:\n%s", code, g.tail())
	}
}

func (g *target) get(path string) ([]byte, error) {
	response, err := g.http.Get("http://unix" + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, response.Status)
	}
	return body, err
}

func (g *target) status() (*agent.Status, error) {
	text, err := g.get(agent.StatusPath)
	if err != nil {
		return nil, err
	}
	status := new(agent.Status)
	return status, json.Unmarshal(text, status)
}

// await waits until the agent's status is as wanted.
func (g *target) await(t *testing.T, what string, wanted func(*agent.Status) bool) {
	t.Helper()
	err := ktest.Eventually(patience, what, func() bool {
		select {
		case <-g.ended:
			return true
		default:
		}
		status, err := g.status()
		return err == nil && wanted(status)
	})
	if err != nil {
		t.Fatalf("%v; the agent said:\n%s", err, g.tail())
	}
	g.alive(t)
}

// samples are the values of series by their names and labels.
type samples []sample

type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// metrics is what the agent serves now, after a drain.
func (g *target) metrics(t *testing.T) (all samples) {
	t.Helper()
	response, err := g.http.Post("http://unix"+agent.DrainPath, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	text, err := g.get("/metrics")
	if err != nil {
		t.Fatalf("%v; the agent said:\n%s", err, g.tail())
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, family := range families {
		for _, metric := range family.GetMetric() {
			s := sample{name, make(map[string]string), metric.GetCounter().GetValue() + metric.GetGauge().GetValue()}
			for _, pair := range metric.GetLabel() {
				s.labels[pair.GetName()] = pair.GetValue()
			}
			all = append(all, s)
		}
	}
	return all
}

// sum adds up a family's series that have all of these labels, as name and value in turn.
func (all samples) sum(name string, labels ...string) (sum float64) {
	for _, s := range all {
		is := s.name == name
		for i := 0; is && i < len(labels); i += 2 {
			is = s.labels[labels[i]] == labels[i+1]
		}
		if is {
			sum += s.value
		}
	}
	return sum
}

// podmeter runs a command of podmeter on the node and returns its exit code.
func (g *target) podmeter(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, g.binary, append(args, "--socket", g.socket)...)
	var text strings.Builder
	command.Stdout, command.Stderr = &text, &text
	if err := g.node.Do(command.Start); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait() // the code is the caller's to judge
	return command.ProcessState.ExitCode(), text.String()
}

// verify wants all interfaces to be equal to the kernel's counters, or explained.
func (g *target) verify(t *testing.T) {
	t.Helper()
	if code, output := g.podmeter(t, "verify"); code != verify.CodeEqual {
		t.Errorf("podmeter verify: got code %d, want %d:\n%s", code, verify.CodeEqual, output)
	}
}
