// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/flows/geo/demodb"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// agentPatience is how long a state of an agent may take to come: it shares the CPUs with
// other tests' agents.
const agentPatience = 2 * time.Minute

// asPodmeter makes the test binary, started once more, podmeter.
const asPodmeter = "PODMETER_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asPodmeter) == "" {
		ktest.Main(m)
	}
	prepare()
	os.Exit(tested().run(os.Args[1:], os.Stdout, os.Stderr))
}

// process is a running podmeter.
type process struct {
	*exec.Cmd
	output bytes.Buffer
}

// start runs podmeter inside a namespace.
func start(t testing.TB, in *ktest.Namespace, environ []string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startProgram(t, in, self, environ, args...)
}

// startProgram starts a program that is podmeter, or becomes it in its environment.
func startProgram(t testing.TB, in *ktest.Namespace, program string, environ []string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(program, args...)}
	p.Env = append(append(os.Environ(), asPodmeter+"=1"), environ...)
	if testing.Short() {
		p.Env = append(p.Env, shallow+"=1")
	}
	p.Stdout, p.Stderr = &p.output, &p.output
	// The child is in the namespace of the thread that starts it.
	if err := in.Do(p.Start); err != nil {
		t.Fatalf("start podmeter: %v", err)
	}
	t.Cleanup(func() {
		if p.ProcessState == nil {
			p.Process.Kill()
			p.Wait()
		}
	})
	return p
}

// end waits for the exit code.
func (p *process) end(t *testing.T) int {
	t.Helper()
	timer := time.AfterFunc(2*agentPatience, func() { p.Process.Kill() })
	defer timer.Stop()
	p.Wait() // a code that is not 0 is the caller's to judge
	return p.ProcessState.ExitCode()
}

// host is a namespace that plays a node with one pod, and the paths of its agent.
type host struct {
	node, pod       *ktest.Namespace
	outside         *ktest.Namespace // see detour
	index           int
	pins, sock, dir string
}

func newHost(t testing.TB) *host {
	t.Helper()
	pod := ktest.NewNode(t).Pod(t, ktest.PodOptions{Introduced: true})
	h := hostOf(t, pod.Node, pod.Namespace)
	h.index = pod.Index
	return h
}

// hostOf gives a node and a pod that are there the paths of an agent, which is uninstalled
// at the end of the test.
func hostOf(t testing.TB, node, pod *ktest.Namespace) *host {
	t.Helper()
	h := &host{node: node, pod: pod, dir: t.TempDir(), pins: ktest.PinPath(t)}
	h.sock = filepath.Join(h.dir, "agent.sock")
	t.Cleanup(func() { h.uninstall(t) })
	return h
}

// uninstall removes what outlives the agent.
func (h *host) uninstall(t testing.TB) {
	t.Helper()
	err := h.node.Do(func() error {
		_, err := agent.Uninstall(h.pins, filepath.Join(h.dir, "state"))
		return err
	})
	if err != nil {
		t.Errorf("uninstall: %v", err)
	}
}

func (h *host) flags(more ...string) []string {
	flags := []string{
		"agent", "--pin-path", h.pins, "--socket", h.sock, "--state-dir", filepath.Join(h.dir, "state"),
		"--listen", "127.0.0.1:9739", "--drain-interval", "200ms",
	}
	if testing.Short() {
		flags = append(flags, "--map-memory", "4Mi") // its pages take as long as the programs
	}
	return append(flags, more...)
}

// await waits until the agent's status is as wanted.
func (h *host) await(t testing.TB, p *process, what string, wanted func(*agent.Status) bool) *agent.Status {
	t.Helper()
	client := newClient(h.sock)
	defer client.close()
	var status *agent.Status
	err := ktest.Eventually(agentPatience, what, func() (came bool) {
		now, err := client.status(t.Context())
		if came = err == nil && wanted(now); came {
			status = now
		}
		return came
	})
	if err != nil {
		p.Process.Kill()
		p.Wait()
		t.Fatalf("%v; the agent said:\n%s", err, &p.output)
	}
	return status
}

func (h *host) awaitAttached(t *testing.T, p *process) *agent.Status {
	t.Helper()
	return h.await(t, p, "veth0 is attached and bound", func(s *agent.Status) bool {
		return len(s.Interfaces) == 1 && s.Interfaces[0].State == "attached" && s.Interfaces[0].Pod != ""
	})
}

// send sends datagrams from the pod to the node.
func (h *host) send(t *testing.T, count int) {
	t.Helper()
	h.pod.Send(t, "198.51.100.1:9", 100, count)
}

// counters are the packets and bytes that the interface got from the pod.
func (h *host) counters(t *testing.T) (packets, bytes float64) {
	t.Helper()
	err := h.node.Do(func() error {
		l, err := netlink.LinkByIndex(h.index)
		if err == nil {
			packets, bytes = float64(l.Attrs().Statistics.RxPackets), float64(l.Attrs().Statistics.RxBytes)
		}
		return err
	})
	if err != nil {
		t.Fatalf("read counters: %v", err)
	}
	return packets, bytes
}

// value returns the sum of a family's values with a label, as the agent serves
// them now.
func (h *host) value(t testing.TB, family, label, is string) float64 {
	t.Helper()
	client := newClient(h.sock)
	defer client.close()
	text, err := client.metrics(t.Context())
	if err != nil {
		t.Fatalf("metrics: %v", err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("parse metrics: %v", err)
	}
	var sum float64
	for _, metric := range families[family].GetMetric() {
		for _, pair := range metric.GetLabel() {
			if pair.GetName() == label && pair.GetValue() == is {
				sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// The whole way: from a packet on a veth to a counter that equals the kernel's,
// and on when the agent is another.
func TestAgentFromPacketToCounter(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := start(t, h.node, nil, h.flags()...)
	status := h.awaitAttached(t, p)
	h.send(t, 40)
	packets, bytes := h.counters(t)
	before := status.Interfaces[0].Before[0]
	want := bytes - float64(before.Bytes)
	if packets-float64(before.Packets) < 40 {
		t.Fatalf("the interface counted %v packets since the attachment, want at least 40", packets)
	}
	h.await(t, p, "all is drained", func(*agent.Status) bool {
		return h.value(t, "podmeter_pod_transmit_bytes_total", "pod", "veth0") >= want
	})
	for _, family := range []string{"podmeter_pod_transmit_bytes_total", "podmeter_flow_transmit_bytes_total"} {
		if got := h.value(t, family, "pod", "veth0"); got != want {
			t.Errorf("%s: got %v, want the interface's %v", family, got, want)
		}
	}
	if got := h.value(t, "podmeter_flow_transmit_bytes_total", "peer_kind", "node"); got < 40*142 {
		t.Errorf("to this host's address: got %v bytes, want at least 40 packets of 142", got)
	}
	p.terminate(t)
	h.send(t, 30) // counted while no agent runs
	p = start(t, h.node, nil, h.flags()...)
	h.awaitAttached(t, p)
	h.send(t, 10)
	_, bytes = h.counters(t)
	want = bytes - float64(before.Bytes)
	h.await(t, p, "all is drained", func(*agent.Status) bool {
		return h.value(t, "podmeter_pod_transmit_bytes_total", "pod", "veth0") >= want
	})
	if got := h.value(t, "podmeter_pod_transmit_bytes_total", "pod", "veth0"); got != want {
		t.Errorf("after a restart: got %v, want the interface's %v", got, want)
	}
	p.terminate(t)
}

// terminate ends an agent in peace.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.end(t); code != 0 {
		t.Errorf("exit code: got %d, want 0; the agent said:\n%s", code, &p.output)
	}
}

// A file that turns bad is told of and changes nothing; one that is good again
// is taken.
func TestAgentReloadsAtHangup(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	file := filepath.Join(h.dir, "pods.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("pods:\n- {name: a, namespace: x, ips: [198.51.100.2], interface: veth0}\n")
	p := start(t, h.node, nil, h.flags("--static-file", file)...)
	status := h.awaitAttached(t, p)
	if got := status.Interfaces[0].Namespace + "/" + status.Interfaces[0].Pod; got != "x/a" {
		t.Errorf("pod: got %s, want x/a", got)
	}
	write("pods:\n- {nam: a}\n")
	if err := p.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	h.await(t, p, "the fault is told, with its line", func(s *agent.Status) bool {
		return strings.Contains(s.Identity.Problem, "pods.yaml:2") && s.Identity.Objects["pod"] == 1
	})
	write("pods:\n- {name: a, namespace: x, ips: [198.51.100.2], interface: veth0}\n- {name: b, ips: [198.51.100.3]}\n")
	if err := p.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	h.await(t, p, "both pods are known", func(s *agent.Status) bool {
		return s.Identity.Problem == "" && s.Identity.Objects["pod"] == 2
	})
}

// An agent that can do without places starts without the file, says so in its status and a
// metric, and takes it when it comes.
func TestAgentStartsWithoutPlaces(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	file := filepath.Join(h.dir, "late.mmdb")
	p := start(t, h.node, nil, h.flags("--geoip", file, "--geoip-optional")...)
	h.awaitAttached(t, p)
	status := h.await(t, p, "the file is missing", func(s *agent.Status) bool { return len(s.GeoIP) == 1 })
	if g := status.GeoIP[0]; g.Path != file || g.Type != "" || !strings.Contains(g.Problem, "no such file") {
		t.Errorf("got %+v, want that there is no such file", g)
	}
	for state, want := range map[string]float64{"missing": 1, "current": 0} {
		if got := h.value(t, "podmeter_geoip_databases", "state", state); got != want {
			t.Errorf("%s: got %v databases, want %v", state, got, want)
		}
	}
	if err := os.WriteFile(file, demodb.City(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	h.await(t, p, "the file is in use", func(s *agent.Status) bool { return s.GeoIP[0].Problem == "" && s.GeoIP[0].Type != "" })
	if got := h.value(t, "podmeter_geoip_databases", "state", "current"); got != 1 {
		t.Errorf("got %v databases in use, want 1", got)
	}
	p.terminate(t)
}

// What keeps an agent from starting is told in a line, with its exit code, and
// nothing is left.
func TestAgentRefusesToStart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	broken := filepath.Join(h.dir, "broken.mmdb")
	if err := os.WriteFile(broken, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name     string
		args     []string
		code     int
		complain string
	}{
		{"no bpffs", []string{"--pin-path", h.dir + "/pins"}, 2, "BPF file system"},
		{"broken database", []string{"--geoip", broken}, 2, broken},
		{"no static file", []string{"--static-file", h.dir + "/none.yaml"}, 2, "none.yaml"},
		{"unknown flag", []string{"--nonsense"}, 2, "--nonsense"},
		{"unknown label", []string{"--flow-labels", "nonsense"}, 2, "nonsense"},
		{"web config", []string{"--web-config-file", broken}, 2, broken},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, h.node, nil, h.flags(test.args...)...)
			code := p.end(t)
			said := p.output.String()
			if code != test.code || !strings.Contains(said, test.complain) {
				t.Errorf("got exit code %d and %q, want %d and %q in it", code, said, test.code, test.complain)
			}
			if _, err := os.Stat(h.pins); !os.IsNotExist(err) {
				t.Errorf("pins: got %v, want none", err)
			}
		})
	}
}

// An agent that is killed leaves its pins; uninstall removes them, but not while
// an agent runs.
func TestUninstallAfterAKill(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := start(t, h.node, nil, h.flags("--attach", "netlink")...)
	h.awaitAttached(t, p)
	uninstall := []string{"uninstall", "--pin-path", h.pins, "--state-dir", filepath.Join(h.dir, "state")}
	beside := start(t, h.node, nil, uninstall...)
	if code := beside.end(t); code != 1 || !strings.Contains(beside.output.String(), "is held by process") {
		t.Errorf("beside an agent: got %d and %q, want 1 and who holds it", code, &beside.output)
	}
	p.Process.Kill()
	p.end(t)
	if pins, err := filepath.Glob(filepath.Join(h.pins, "flows_0_*")); err != nil || len(pins) != 1 {
		t.Fatalf("pins after a kill: %v, %v, want one of the flows of set 0", pins, err)
	}
	after := start(t, h.node, nil, uninstall...)
	if code := after.end(t); code != 0 || strings.Count(after.output.String(), "removed ") < 10 {
		t.Errorf("after a kill: got %d and %q, want 0 and all that was removed", code, &after.output)
	}
	if _, err := os.Stat(h.pins); !os.IsNotExist(err) {
		t.Errorf("pins: got %v, want none", err)
	}
}

// The demo shows podmeter's numbers equal to the kernel's, both ways to attach.
func TestDemoIsExact(t *testing.T) {
	t.Parallel()
	for _, attach := range []string{"auto", "netlink"} {
		t.Run(attach, func(t *testing.T) {
			t.Parallel()
			// In a namespace of its own, where the port is free.
			p := start(t, ktest.NewNamespace(t), nil, "demo", "--duration", "3s", "--attach", attach)
			if code := p.end(t); code != 0 || !strings.Contains(p.output.String(), "All equal") {
				t.Errorf("got exit code %d, want 0; the demo said:\n%s", code, &p.output)
			}
		})
	}
}
