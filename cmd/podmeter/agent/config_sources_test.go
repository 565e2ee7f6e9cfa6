// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/regular"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// load returns the configuration of a command line, an environment and the
// content of a config file, empty for none.
func load(t *testing.T, args, environ []string, file string) (Config, []string, error) {
	t.Helper()
	c := Defaults()
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	AddFlags(fs, &c)
	if file != "" {
		args = append(args, "--config", write(t, file))
	}
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	warnings, err := Load(fs, environ)
	c.ConfigFile = ""
	return c, warnings, err
}

func write(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "podmeter.yaml")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// samples is for each flag a value that is not its default, in the notation of
// the command line.
var samples = map[string]string{
	"config": "", "listen": "127.0.0.1:1", "web-config-file": "web.yaml", "page": "true", "page-hosts": "a.example,*", "pprof": "true", "socket": "/s",
	"interfaces": "veth*,!veth0", "uplinks": "eth*,!eth1", "uplink-series-limit": "5", "xdp-mode": "native", "attach": "tcx", "drain-interval": "7s", "map-memory": "8Mi",
	"pin-path": "/sys/fs/bpf/a", "state-dir": "/run/a", "identity": "none", "scope": "node", "service-translation": "off", "kubeconfig": "k",
	"cni-cache": "/c", "daemonset": "a/b", "sockets": "off", "host-pods": "off", "cgroup-root": "/g",
	"node-name": "n", "static-file": "s", "cidr-file": "c", "nat64-prefix": "64:ff9b:1::/96,2001:db8:64::/48", "geoip": "a.mmdb,b.mmdb", "geoip-optional": "true", "flow-labels": "peer_ip",
	"external-labels": "city,ip", "rtt-classic-buckets": "true", "rtt-buckets": "fine", "link-local-peers": "true", "flow-series-limit": "3", "external-series-limit": "4", "flow-idle": "2h",
	"remote-write-url": "http://a/w,http://b/w", "remote-write-http-config-file": "f", "remote-write-labels": "a=b", "remote-write-interval": "9s",
	"remote-write-spool": "/w", "remote-write-spool-limit": "8Mi", "remote-write-native-histograms": "true",
	"series-grace": "9m", "log-level": "debug", "log-format": "json",
}

// TestEveryFlagFromEverywhere gives each flag from each source, so that a flag
// that is added has all of them, and its own field.
func TestEveryFlagFromEverywhere(t *testing.T) {
	fields := make(map[string]bool)
	agentFlags().VisitAll(func(flag *pflag.Flag) {
		value, ok := samples[flag.Name]
		if !ok {
			t.Errorf("flag %s has no sample in this test", flag.Name)
		}
		if flag.Name == "config" {
			return
		}
		line := flag.Name + ": " + value
		if strings.Contains(value, "!") {
			line = flag.Name + ": '" + value + "'"
		}
		want, _, err := load(t, []string{"--" + flag.Name + "=" + value}, nil, "")
		if err != nil || reflect.DeepEqual(want, Defaults()) {
			t.Errorf("--%s %s: got %v and the defaults, want them changed", flag.Name, value, err)
		}
		fields[changed(want)] = true
		got, _, err := load(t, nil, []string{EnvName(flag.Name) + "=" + value}, "")
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s from the environment: %v (-flag +variable):\n%s", flag.Name, err, diff)
		}
		got, _, err = load(t, nil, nil, line)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s from the file: %v (-flag +file):\n%s", flag.Name, err, diff)
		}
	})
	if got, want := len(fields), reflect.TypeFor[Config]().NumField()-1; got != want { // ConfigFile
		t.Errorf("got flags for %d fields of Config, want %d", got, want)
	}
}

// changed names the fields that are not the default.
func changed(c Config) (names string) {
	got, defaults := reflect.ValueOf(c), reflect.ValueOf(Defaults())
	for i := range got.NumField() {
		if !reflect.DeepEqual(got.Field(i).Interface(), defaults.Field(i).Interface()) {
			names += got.Type().Field(i).Name
		}
	}
	return names
}

func TestPrecedence(t *testing.T) {
	const file = "drain-interval: 3s\ngeoip: [file.mmdb]\n"
	environ := []string{"PODMETER_DRAIN_INTERVAL=2s", "PODMETER_GEOIP=env-a.mmdb,env-b.mmdb"}
	flags := []string{"--drain-interval=1s", "--geoip=flag.mmdb"}
	for _, test := range []struct {
		name     string
		args     []string
		environ  []string
		file     string
		interval time.Duration
		geoip    []string
	}{
		{"default", nil, nil, "", 5 * time.Second, nil},
		{"file", nil, nil, file, 3 * time.Second, []string{"file.mmdb"}},
		{"environment", nil, environ, file, 2 * time.Second, []string{"env-a.mmdb", "env-b.mmdb"}},
		{"flag", flags, environ, file, time.Second, []string{"flag.mmdb"}},
		{"flag over file", flags, nil, file, time.Second, []string{"flag.mmdb"}},
		{"empty variable", nil, []string{"PODMETER_DRAIN_INTERVAL="}, file, 3 * time.Second, []string{"file.mmdb"}},
		{"flag that is the default", []string{"--drain-interval=5s"}, environ[:1], "", 5 * time.Second, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, warnings, err := load(t, test.args, test.environ, test.file)
			if err != nil || len(warnings) > 0 {
				t.Fatalf("got %v and %v, want neither", err, warnings)
			}
			if c.DrainInterval != test.interval || !cmp.Equal(c.GeoIP, test.geoip) {
				t.Errorf("got %v and %v, want %v and %v", c.DrainInterval, c.GeoIP, test.interval, test.geoip)
			}
		})
	}
}

// A flag that is another now does what it did, says so, and goes after the other.
func TestFormerFlags(t *testing.T) {
	for _, test := range []struct {
		name          string
		args, environ []string
		file          string
		want          bool
		warned        string // empty for no warning
	}{
		{name: "none"},
		{name: "fine", args: []string{"--rtt-buckets=fine"}, want: true, warned: "--rtt-buckets is --rtt-classic-buckets now, with seven bounds from 977 us to 4 s: fine is read as true"},
		{name: "coarse", environ: []string{"PODMETER_RTT_BUCKETS=coarse"}, want: true, warned: "PODMETER_RTT_BUCKETS in the environment is --rtt-classic-buckets now"},
		{name: "off", file: "rtt-buckets: off\n", warned: ":1: rtt-buckets is --rtt-classic-buckets now, with seven bounds from 977 us to 4 s: off is read as false"},
		{name: "both", args: []string{"--rtt-buckets=fine", "--rtt-classic-buckets=false"}, warned: "which is given too: it is ignored"},
		{name: "the other in the file", args: []string{"--rtt-buckets=fine"}, file: "rtt-classic-buckets: false\n", warned: "which is given too: it is ignored"},
		{name: "the other alone", environ: []string{"PODMETER_RTT_CLASSIC_BUCKETS=true"}, want: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, warnings, err := load(t, test.args, test.environ, test.file)
			if err != nil || c.RTTClassicBuckets != test.want {
				t.Errorf("got %v and %v, want %v", c.RTTClassicBuckets, err, test.want)
			}
			if got := strings.Join(warnings, "\n"); (got != "") != (test.warned != "") || !strings.Contains(got, test.warned) {
				t.Errorf("got the warning %q, want %q", got, test.warned)
			}
		})
	}
}

func TestConfigFileFromEnvironment(t *testing.T) {
	file := write(t, "log-level: debug\n")
	c, _, err := load(t, nil, []string{"PODMETER_CONFIG=" + file}, "")
	if err != nil || c.LogLevel != "debug" {
		t.Errorf("got %q and %v, want debug", c.LogLevel, err)
	}
}

func TestFile(t *testing.T) {
	for _, test := range []struct {
		name, file string
		change     func(*Config) // what it makes of the defaults
		want       string        // in the error, else empty; FILE stands for the path
	}{
		{name: "empty", file: "# nothing\n"},
		{name: "only a document start", file: "---\n"},
		{name: "null keeps the default", file: "log-level:\ngeoip: null\n"},
		{name: "list", file: "interfaces:\n- veth*\n- '!veth0'\n",
			change: func(c *Config) { c.Interfaces = []string{"veth*", "!veth0"} }},
		{name: "list item with a comma", file: "geoip: ['a,b.mmdb']\n", change: func(c *Config) { c.GeoIP = []string{"a,b.mmdb"} }},
		{name: "empty list", file: "geoip: []\n", change: func(c *Config) { c.GeoIP = []string{} }},
		{name: "switches as YAML has them", file: "page: yes\npprof: On\nremote-write-native-histograms: off\n",
			change: func(c *Config) { c.Page, c.Pprof = true, true }},
		{name: "alias", file: "pin-path: &p /run/a\nstate-dir: *p\n",
			change: func(c *Config) { c.PinPath, c.StateDir = "/run/a", "/run/a" }},
		{name: "unknown key", file: "listen: ':1'\n\nlisten-on: ':2'\n", want: "FILE:3: listen-on: no such setting"},
		{name: "field for key", file: "logLevel: debug\n", want: "FILE:1: logLevel: no such setting"},
		{name: "key twice", file: "scope: node\nscope: cluster\n", want: "FILE:2: scope: given twice"},
		{name: "config in config", file: "config: other.yaml\n", want: "FILE:1: config: no such setting"},
		{name: "duration without unit", file: "log-level: info\ndrain-interval: 5\n", want: `FILE:2: drain-interval: "5": a number with its unit is expected`},
		{name: "bad number", file: "flow-series-limit: many\n", want: "FILE:1: flow-series-limit: "},
		{name: "bad size", file: "map-memory: 64MB\n", want: `FILE:1: map-memory: "64MB": a number of bytes is expected`},
		{name: "bad bool", file: "pprof: perhaps\n", want: "FILE:1: pprof: "},
		{name: "list for one", file: "listen: [':1']\n", want: "FILE:1: listen: one value is expected, not a list"},
		{name: "mapping", file: "geoip:\n  city: a.mmdb\n", want: "FILE:1: geoip: a value or a list of values is expected"},
		{name: "list of lists", file: "geoip:\n- a\n- [b]\n", want: "FILE:1: geoip: line 3: a list of plain values"},
		{name: "unquoted exclusion", file: "interfaces:\n- veth*\n- !veth0\n", want: "YAML reads !veth0 as a tag"},
		{name: "unquoted exclusion alone", file: "interfaces: !veth0\n", want: "YAML reads !veth0 as a tag"},
		{name: "scalar", file: "debug\n", want: "parse --config FILE: line 1: a mapping"},
		{name: "sequence", file: "\n- a\n", want: "parse --config FILE: line 2: a mapping"},
		{name: "no YAML", file: "listen: ':1'\n\tscope: node\n", want: "parse --config FILE: yaml: line 2: "},
		{name: "two documents", file: "scope: node\n---\nscope: node\n", want: "there is a second"},
		{name: "merge key", file: "<<: {scope: node}\n", want: "FILE:1: <<: no such setting"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _, err := load(t, nil, nil, test.file)
			if test.want != "" {
				checkFileError(t, err, test.want)
				return
			}
			want := Defaults()
			if test.change != nil {
				test.change(&want)
			}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("got %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// checkFileError expects wrong usage and its text; FILE stands for any path.
func checkFileError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !IsUsage(err) {
		t.Fatalf("got %v, want wrong usage with %q", err, want)
	}
	before, after, _ := strings.Cut(want, "FILE")
	_, rest, found := strings.Cut(err.Error(), "podmeter.yaml")
	if after == "" {
		found, rest, before = true, err.Error(), ""
		after = want
	}
	if !found || !strings.HasPrefix(err.Error(), before) || !strings.Contains(rest, after) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestFileFaultsAreAllNamed(t *testing.T) {
	_, _, err := load(t, nil, []string{"PODMETER_FLOW_IDLE=soon"}, "lisen: ':1'\nseries-grace: 1\n")
	if err == nil {
		t.Fatal("got no error, want three")
	}
	for _, want := range []string{"PODMETER_FLOW_IDLE in the environment: ", ":1: lisen: ", ":2: series-grace: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it too", err, want)
		}
	}
}

func TestFileThatIsOverriddenIsCheckedAllTheSame(t *testing.T) {
	c, _, err := load(t, []string{"--flow-idle=2h"}, nil, "flow-idle: soon\n")
	if err == nil || c.FlowIdle != 2*time.Hour {
		t.Errorf("got %v and %v, want an error and the flag's 2h", err, c.FlowIdle)
	}
}

func TestFileThatIsMissing(t *testing.T) {
	_, _, err := load(t, []string{"--config=/nowhere/podmeter.yaml"}, nil, "")
	if !IsUsage(err) || !strings.Contains(err.Error(), "read --config: open /nowhere/podmeter.yaml: no such file") {
		t.Errorf("got %v, want wrong usage naming the file", err)
	}
}

// A configuration that would hang the agent before its first line, or fill the memory, is
// refused by name.
func TestFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	pipe, large := filepath.Join(dir, "pipe"), filepath.Join(dir, "large.yaml")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.WriteFile(large, nil, 0o600), os.Truncate(large, regular.ConfigLimit+1)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, large, dir, "/dev/zero"} {
		if _, _, err := load(t, []string{"--config=" + path}, nil, ""); !IsUsage(err) || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v, want wrong usage naming %s", err, path)
		}
	}
	if _, err := remoteWriteClient(pipe); !errors.Is(err, regular.ErrNotRegular) {
		t.Errorf("remote write: got %v, want %v", err, regular.ErrNotRegular)
	}
}

// TestLoadOfAnotherCommand reads the agent's file for one of its flags.
func TestLoadOfAnotherCommand(t *testing.T) {
	fs := pflag.NewFlagSet("status", pflag.ContinueOnError)
	c := Defaults()
	fs.StringVar(&c.ConfigFile, "config", "", "")
	AddSocketFlag(fs, &c.Socket)
	if err := fs.Parse([]string{"--config", write(t, "listen: ':1'\nsocket: /run/other.sock\n")}); err != nil {
		t.Fatal(err)
	}
	warnings, err := Load(fs, []string{"PODMETER_LOG_LEVEL=debug"})
	if err != nil || len(warnings) > 0 || c.Socket != "/run/other.sock" {
		t.Errorf("got socket %q, %v and %v, want the file's alone", c.Socket, warnings, err)
	}
}

func TestWarnings(t *testing.T) {
	for _, test := range []struct {
		variable string
		warned   bool
	}{
		{"PODMETER_LISTEN=:1", false}, {"PODMETER_LISTN=:1", true}, {"PODMETER_=x", true},
		{"PODMETERS=x", false}, {"OTHER=x", false},
		{"PODMETER_SERVICE_HOST=192.0.2.1", false}, {"PODMETER_SERVICE_PORT=9739", false},
		{"PODMETER_SERVICE_PORT_METRICS=9739", false}, {"PODMETER_PORT=tcp://192.0.2.1:9739", false},
		{"PODMETER_PORT_9739_TCP=tcp://192.0.2.1:9739", false}, {"PODMETER_PORT_9739_TCP_ADDR=192.0.2.1", false},
		{"PODMETER_PORT_9739_TCP_PROTO=tcp", false}, {"PODMETER_PORT_9739_TCP_PORT=9739", false},
		{"PODMETER_HEADLESS_SERVICE_HOST=192.0.2.1", false}, {"PODMETER_PORTS=1", true},
		{"PODMETER_PORT_9739_TCP_OTHER=1", true},
	} {
		t.Run(test.variable, func(t *testing.T) {
			_, warnings, err := load(t, nil, []string{test.variable}, "")
			if err != nil || (len(warnings) == 1) != test.warned {
				t.Fatalf("got %v and %v, want a warning: %v", err, warnings, test.warned)
			}
			if name, value, _ := strings.Cut(test.variable, "="); test.warned &&
				(!strings.HasPrefix(warnings[0], name+" ") || strings.Contains(warnings[0], value+" ")) {
				t.Errorf("got %q, want the variable named, and not its value", warnings[0])
			}
		})
	}
}

func TestNoFlagLooksLikeAServiceLink(t *testing.T) {
	agentFlags().VisitAll(func(flag *pflag.Flag) {
		if name := EnvName(flag.Name); serviceLinks().MatchString(name) {
			t.Errorf("%s is what Kubernetes sets for a Service: it would be set by accident", name)
		}
	})
}
