// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip/fetch"
	"github.com/spf13/pflag"
)

// noon is the tests' now.
var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

// result is what one command line gave.
type result struct {
	code           int
	stdout, stderr string
}

// recorder stands in for what commands do, and keeps what they were given.
type recorder struct {
	config    agent.Config
	demo      demoOptions
	geoip     geoip.Config
	fetch     fetch.Config
	uninstall uninstallOptions

	removed []string
	err     error
}

func (r *recorder) run(t *testing.T, environ []string, args ...string) result {
	t.Helper()
	c := &commands{
		environ: environ, hostname: func() (string, error) { return "host-a", nil },
		now: func() time.Time { return noon },
		runAgent: func(_ context.Context, config agent.Config, log *slog.Logger) error {
			log.Info("metering")
			r.config = config
			return r.err
		},
		runDemo: func(_ context.Context, options demoOptions, out io.Writer) error {
			r.demo = options
			_, err := io.WriteString(out, "all equal\n")
			return errors.Join(err, r.err)
		},
		runGeoIP: func(_ context.Context, config geoip.Config, _ *slog.Logger) error {
			r.geoip = config
			return r.err
		},
		runFetch: func(_ context.Context, config fetch.Config, _ *slog.Logger) error {
			r.fetch = config
			return r.err
		},
		uninstall: func(_ context.Context, options uninstallOptions) ([]string, error) {
			r.uninstall = options
			return r.removed, r.err
		},
	}
	var stdout, stderr bytes.Buffer
	code := c.execute(t.Context(), args, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func TestExitCodes(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("lisen: ':1'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("attach programs: no CAP_BPF")
	malformed := agent.Usage(errors.New("read --static-file pods.yaml:3: no name"))
	for _, test := range []struct {
		name, args string
		environ    []string
		err        error
		code       int
		stderr     string // its beginning
		see        string // the command of the last line, empty for none
	}{
		{name: "agent", args: "agent", stderr: "time="},
		{name: "help", args: "agent --help"},
		{name: "help of root", args: "--help"},
		{name: "help command", args: "help uninstall"},
		{name: "version", args: "--version"},
		{name: "completion", args: "completion bash"},
		{name: "agent fails", args: "agent --log-level error", err: failure, code: 1, stderr: "podmeter: attach programs: no CAP_BPF\n"},
		{name: "agent finds a bad file", args: "agent --log-level error", err: malformed, code: 2,
			stderr: "podmeter: read --static-file pods.yaml:3: no name\n", see: "podmeter agent"},
		{name: "demo fails", args: "demo", err: failure, code: 1, stderr: "podmeter: attach"},
		{name: "uninstall fails", args: "uninstall", err: failure, code: 1, stderr: "podmeter: attach"},
		{name: "nothing", args: "", code: 2, stderr: "podmeter: a subcommand is expected: agent,", see: "podmeter"},
		{name: "unknown subcommand", args: "agnt", code: 2, stderr: `podmeter: there is no subcommand "agnt"; is it "agent"?`, see: "podmeter"},
		{name: "unknown help", args: "help me", code: 2, stderr: `podmeter: there is no help on "me"`, see: "podmeter help"},
		{name: "unknown shell", args: "completion dash", code: 2, stderr: `podmeter: there is no subcommand "dash"`, see: "podmeter completion"},
		{name: "unknown flag", args: "agent --lisen :1", code: 2, stderr: "podmeter: unknown flag: --lisen; is it --listen?\n", see: "podmeter agent"},
		{name: "unknown flag of root", args: "--lisen", code: 2, stderr: "podmeter: unknown flag: --lisen\n", see: "podmeter"},
		{name: "malformed flag", args: "agent --flow-idle soon", code: 2, stderr: `podmeter: --flow-idle "soon": a number with its unit is expected`, see: "podmeter agent"},
		{name: "argument", args: "agent eth0", code: 2, stderr: `podmeter: "eth0" is too much`, see: "podmeter agent"},
		{name: "bad value", args: "agent --attach xdp", code: 2, stderr: `podmeter: --attach "xdp": auto, tcx or netlink`, see: "podmeter agent"},
		{name: "bad variable", args: "agent", environ: []string{"PODMETER_PPROF=x"}, code: 2, stderr: "podmeter: PODMETER_PPROF in the environment: ", see: "podmeter agent"},
		{name: "bad file", args: "agent --config " + bad, code: 2, stderr: "podmeter: " + bad + ":1: lisen: no such setting", see: "podmeter agent"},
		{name: "no file", args: "agent --config " + bad + "x", code: 2, stderr: "podmeter: read --config: open ", see: "podmeter agent"},
		{name: "bad demo", args: "demo --duration 0s", code: 2, stderr: "podmeter: --duration 0s: at least 2s", see: "podmeter demo"},
		{name: "bad demo attach", args: "demo --attach xdp", code: 2, stderr: `podmeter: --attach "xdp": `, see: "podmeter demo"},
		{name: "bad demo listen", args: "demo --listen 9739", code: 2, stderr: `podmeter: --listen "9739": `, see: "podmeter demo"},
		{name: "geoip fails", args: "geoip -q up -d a.mmdb", err: failure, code: 1, stderr: "podmeter: attach"},
		{name: "geoip without a query", args: "geoip -d a.mmdb", code: 2, stderr: "podmeter: --query is expected, or QUERY in the environment", see: "podmeter geoip"},
		{name: "geoip without a database", args: "geoip -q up", code: 2, stderr: "podmeter: --geoip is expected", see: "podmeter geoip"},
		{name: "bad geoip URL", args: "geoip -q up -d a.mmdb -p prometheus:9090", code: 2, stderr: `podmeter: --prometheus-url "prometheus:9090": a URL`, see: "podmeter geoip"},
		{name: "fetch fails", args: "geoip fetch", err: failure, code: 1, stderr: "podmeter: attach"},
		{name: "unknown database", args: "geoip fetch --database cities", code: 2, stderr: `podmeter: --database "cities": country, city, asn are known`, see: "podmeter geoip fetch"},
		{name: "mistyped fetch", args: "geoip fetsh", code: 2, stderr: `podmeter: "fetsh" is too much`, see: "podmeter geoip"},
		{name: "bad pin path", args: "uninstall --pin-path /sys/fs/bpf", code: 2, stderr: `podmeter: --pin-path "/sys/fs/bpf": `, see: "podmeter uninstall"},
		{name: "bad output", args: "version -o yaml", code: 2, stderr: `podmeter: --output "yaml": text or json`, see: "podmeter version"},
		{name: "bad status output", args: "status -o yaml", code: 2, stderr: `podmeter: --output "yaml": table, text or json is expected`, see: "podmeter status"},
		{name: "no agent", args: "status --socket /nowhere/agent.sock", code: 1, stderr: "podmeter: no agent answers at /nowhere/agent.sock: is it running?"},
		{name: "two probes", args: "status --ready --alive", code: 2, stderr: "podmeter: --ready and --alive are two questions", see: "podmeter status"},
		{name: "wait for no probe", args: "status --wait 5s", code: 2, stderr: "podmeter: --wait 5s: it is for --ready and --alive", see: "podmeter status"},
		{name: "negative wait", args: "status --ready --wait -5s", code: 2, stderr: "podmeter: --wait -5s: 0 or more is expected", see: "podmeter status"},
		{name: "no agent to be ready", args: "status --ready --socket /nowhere/agent.sock", code: 1, stderr: "podmeter: no agent answers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := (&recorder{err: test.err}).run(t, test.environ, strings.Fields(test.args)...)
			if got.code != test.code || !strings.HasPrefix(got.stderr, test.stderr) {
				t.Errorf("got %d and %q, want %d and %q", got.code, got.stderr, test.code, test.stderr)
			}
			checkSee(t, got.stderr, test.see)
			if test.code != 0 && strings.Count(got.stderr, strings.TrimSpace(test.stderr)) != 1 {
				t.Errorf("got %q, want its error once", got.stderr)
			}
		})
	}
}

func checkSee(t *testing.T, stderr, command string) {
	t.Helper()
	want := "see '" + command + " --help'\n"
	if got := strings.Contains(stderr, "see '"); got != (command != "") || got && !strings.HasSuffix(stderr, want) {
		t.Errorf("got %q, want the end %q", stderr, want)
	}
}

func TestEveryFaultHasItsLine(t *testing.T) {
	got := new(recorder).run(t, nil, "agent", "--attach=x", "--scope=y")
	want := "podmeter: --attach \"x\": auto, tcx or netlink is expected\n" +
		"podmeter: --scope \"y\": cluster or node is expected\n" + "see 'podmeter agent --help'\n"
	if diff := cmp.Diff(want, got.stderr); diff != "" {
		t.Errorf("stderr (-want +got):\n%s", diff)
	}
}

func TestAgentGetsItsConfig(t *testing.T) {
	var r recorder
	got := r.run(t, []string{"PODMETER_SCOPE=cluster", "PODMETER_LISTN=:1", "PODMETER_PORT=tcp://192.0.2.1:1"},
		"agent", "--geoip", "a.mmdb", "--geoip", "b.mmdb", "--map-memory=8Mi", "--log-format=json")
	want := agent.Defaults()
	want.GeoIP, want.MapMemory, want.LogFormat = []string{"a.mmdb", "b.mmdb"}, 8<<20, "json"
	want.Identity, want.NodeName = agent.IdentityNone, "host-a"
	if diff := cmp.Diff(want, r.config); got.code != 0 || diff != "" {
		t.Errorf("got %d, configuration (-want +got):\n%s", got.code, diff)
	}
	lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
	var messages []string
	for _, line := range lines {
		var entry struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("log line %q is not JSON: %v", line, err)
		}
		messages = append(messages, entry.Level+" "+entry.Msg)
	}
	wantLog := []string{"WARN PODMETER_LISTN in the environment names no flag and is ignored; is it PODMETER_LISTEN?", "INFO metering"}
	if diff := cmp.Diff(wantLog, messages); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestLogLevel(t *testing.T) {
	for level, want := range map[string]bool{"debug": true, "info": true, "warn": false, "error": false} {
		got := new(recorder).run(t, nil, "agent", "--log-level", level)
		if logged := strings.Contains(got.stderr, "msg=metering"); logged != want {
			t.Errorf("%s: got %q, want an entry of level info: %v", level, got.stderr, want)
		}
	}
}

func TestDemoGetsItsOptions(t *testing.T) {
	for _, test := range []struct {
		name    string
		environ []string
		args    []string
		want    demoOptions
	}{
		{"default", nil, nil, demoOptions{30 * time.Second, "auto", "127.0.0.1:9739"}},
		{"flags", nil, []string{"--duration=5s", "--attach=netlink", "--listen=:1"}, demoOptions{5 * time.Second, "netlink", ":1"}},
		{"environment", []string{"PODMETER_DURATION=3s"}, nil, demoOptions{3 * time.Second, "auto", "127.0.0.1:9739"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r recorder
			got := r.run(t, test.environ, append([]string{"demo"}, test.args...)...)
			if r.demo != test.want || got.code != 0 || got.stdout != "all equal\n" {
				t.Errorf("got %+v and %+v, want %+v", r.demo, got, test.want)
			}
		})
	}
}

func TestUninstall(t *testing.T) {
	r := recorder{removed: []string{"link of eth0", "pins at /sys/fs/bpf/a"}}
	got := r.run(t, []string{"PODMETER_STATE_DIR=/run/a"}, "uninstall", "--pin-path=/sys/fs/bpf/a")
	if r.uninstall.PinPath != "/sys/fs/bpf/a" || r.uninstall.StateDir != "/run/a" || r.uninstall.Logger == nil {
		t.Errorf("got %+v, want the paths of the command line and a logger", r.uninstall)
	}
	want := result{0, "removed link of eth0\nremoved pins at /sys/fs/bpf/a\n", ""}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got = new(recorder).run(t, nil, "uninstall")
	if !strings.HasPrefix(got.stdout, "nothing to remove: ") || got.code != 0 {
		t.Errorf("got %+v, want to be told that nothing was there", got)
	}
	r = recorder{removed: []string{"a link"}, err: errors.New("remove pins: busy")}
	want = result{1, "removed a link\n", "podmeter: remove pins: busy\n"}
	if got = r.run(t, nil, "uninstall"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestVersion(t *testing.T) {
	got := new(recorder).run(t, nil, "version", "-o", "json")
	var b build
	if err := json.Unmarshal([]byte(got.stdout), &b); err != nil || got.code != 0 {
		t.Fatalf("got %v and %+v, want JSON", err, got)
	}
	if b != newBuild() || b.Version == "" || !strings.HasPrefix(b.GoVersion, "go") || !strings.Contains(b.Platform, "/") {
		t.Errorf("got %+v, want all of the build %+v", b, newBuild())
	}
	text := new(recorder).run(t, nil, "version").stdout
	if flag := new(recorder).run(t, nil, "--version").stdout; text != flag || text != b.String()+"\n" {
		t.Errorf("got %q and with the flag %q, want both %q", text, flag, b.String())
	}
}

func TestBuildString(t *testing.T) {
	b := build{Version: "v1.2.3", Revision: "abc-dirty", GoVersion: "go1.26", Platform: "linux/arm64"}
	if got, want := b.String(), "podmeter v1.2.3, revision abc-dirty, go1.26, linux/arm64"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestHelpNamesEveryFlag also holds the help to a terminal's width.
func TestHelpNamesEveryFlag(t *testing.T) {
	for _, command := range (&commands{}).root(io.Discard, io.Discard).Commands() {
		got := new(recorder).run(t, nil, "help", command.Name())
		command.Flags().VisitAll(func(flag *pflag.Flag) {
			if !strings.Contains(got.stdout, "--"+flag.Name+" ") {
				t.Errorf("%s: help does not name --%s", command.Name(), flag.Name)
			}
		})
		for line := range strings.Lines(got.stdout) {
			if len(line) > 101 && command.Name() != "completion" {
				t.Errorf("%s: line of %d bytes in help: %s", command.Name(), len(line)-1, line)
			}
		}
	}
}

func TestCompletionOfOutputs(t *testing.T) {
	for command, want := range map[string]string{"status": "table\ntext\njson\n", "version": "text\njson\n"} {
		if got := new(recorder).run(t, nil, "__complete", command, "-o", ""); !strings.HasPrefix(got.stdout, want) {
			t.Errorf("%s: got %q, want %q offered", command, got.stdout, want)
		}
	}
}

func TestCompletion(t *testing.T) {
	for flag, want := range map[string]string{
		"--attach": "tcx", "--identity": "static", "--scope": "node", "--log-level": "warn", "--log-format": "json",
		"--flow-labels": "peer_port", "--external-labels": "city",
	} {
		got := new(recorder).run(t, nil, "__complete", "agent", flag, "")
		if !strings.Contains("\n"+got.stdout, "\n"+want+"\n") {
			t.Errorf("%s: got %q, want %q offered", flag, got.stdout, want)
		}
	}
}

// TestCompletedLabelsExist gives the agent every label that the shell offers.
func TestCompletedLabelsExist(t *testing.T) {
	for _, flag := range []string{"--flow-labels", "--external-labels"} {
		offered := strings.Fields(new(recorder).run(t, nil, "__complete", "agent", flag, "").stdout)
		labels := strings.Join(offered[:len(offered)-1], ",") // the last tells the shell what they are
		if got := new(recorder).run(t, nil, "agent", flag, labels); got.code != 0 || labels == "" {
			t.Errorf("%s %q: got %+v, want it taken", flag, labels, got)
		}
	}
}

func TestRun(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"version"}, nil, &stdout, &stderr); code != 0 || stdout.String() != newBuild().String()+"\n" {
		t.Errorf("got %d, %q and %q, want the version", code, stdout.String(), stderr.String())
	}
}
