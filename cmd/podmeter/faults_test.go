// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/spf13/pflag"
)

// parsers are words of those who parse, which say nothing to who wrote the value.
var parsers = regexp.MustCompile(`strconv|Parse|parsing|invalid (syntax|argument)|time: |quantities must|record on line|bare "`)

// origins are where a value can be written, with what an error calls the place.
var origins = []struct {
	name string
	run  func(t *testing.T, flag, value string) (got result, place string)
}{
	{"flag", func(t *testing.T, flag, value string) (result, string) {
		return new(recorder).run(t, nil, "agent", "--"+flag+"="+value), "--" + flag + " "
	}},
	{"environment", func(t *testing.T, flag, value string) (result, string) {
		name := agent.EnvName(flag)
		return new(recorder).run(t, []string{name + "=" + value}, "agent"), name + " in the environment: "
	}},
	{"file", func(t *testing.T, flag, value string) (result, string) {
		file := filepath.Join(t.TempDir(), "podmeter.yaml")
		content := fmt.Sprintf("# settings\n%s: %q\n", flag, value)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return new(recorder).run(t, nil, "agent", "--config", file), file + ":2: " + flag + ": "
	}},
}

// A tired user reads where he wrote a value, the value, and what to write instead.
func TestFaultsSayWhatToWrite(t *testing.T) {
	const (
		duration = "a number with its unit is expected, such as 5s, 500ms or 1h30m"
		size     = "a number of bytes is expected, such as 64Mi, 100M or 67108864"
		number   = "a whole number is expected, such as 2000"
		list     = "values with commas between them are expected"
	)
	for _, test := range []struct{ flag, value, want string }{
		{"page", "oui", "true or false is expected"},
		{"pprof", "2", "true or false is expected"},
		{"remote-write-native-histograms", "enabled", "true or false is expected"},
		{"drain-interval", "10", duration + "; is it 10s?"},
		{"drain-interval", "5 s", duration + "; is it 5s?"},
		{"drain-interval", "5sec", duration + "; is it 5s?"},
		{"drain-interval", "5S", duration + "; is it 5s?"},
		{"flow-idle", "1,5h", duration + "; is it 1h30m?"},
		{"flow-idle", "2 days", duration + "; is it 48h?"},
		{"flow-idle", "1h 30min", duration + "; is it 1h30m?"},
		{"series-grace", "soon", duration},
		{"series-grace", "-1", duration},
		{"drain-interval", "-1s", "100ms to 10m0s is expected"},
		{"drain-interval", "11m0s", "100ms to 10m0s is expected"},
		{"map-memory", "64MB", size + "; is it 64M or 64Mi?"},
		{"map-memory", "1GB", size + "; is it 1G or 1Gi?"},
		{"map-memory", "64mb", size + "; is it 64M or 64Mi?"},
		{"map-memory", "64MiB", size + "; is it 64Mi?"},
		{"map-memory", "64 Mi", size + "; is it 64Mi?"},
		{"map-memory", "512K", size + "; is it 512k or 512Ki?"},
		{"map-memory", "1,5Gi", size + "; is it 1.5Gi?"},
		{"map-memory", "much", size},
		{"map-memory", "-64Mi", size},
		{"map-memory", "512G", "1Mi to 256Gi is expected"},
		{"remote-write-spool-limit", "256MB", size + "; is it 256M or 256Mi?"},
		{"flow-series-limit", "many", number},
		{"flow-series-limit", "2,000", number + "; is it 2000?"},
		{"flow-series-limit", "2k", number + "; is it 2000?"},
		{"flow-series-limit", "1e3", number + "; is it 1000?"},
		{"flow-series-limit", "1.5", number},
		{"flow-series-limit", "-1", "0 or more is expected"},
		{"geoip", `a"b.mmdb`, list},
		{"interfaces", "[", "a glob is expected, such as"},
		{"attach", "TCX", "auto, tcx or netlink is expected"},
		{"sockets", "true", "auto, on or off is expected"},
		{"rtt-classic-buckets", "fine", "true or false is expected"},
		{"rtt-buckets", "none", "fine, coarse or off is expected"},
		{"log-level", "verbose", "debug, info, warn or error is expected"},
		{"listen", "9739", "host:port is expected, such as :9739"},
		{"listen", "localhost:http-metrics", `"http-metrics" is no port`},
		{"socket", "agent.sock", "an absolute path is expected, such as /run/podmeter/agent.sock"},
		{"pin-path", "/sys/fs/bpf", "a directory of its own is expected"},
		{"flow-labels", "pid", `unknown flow label "pid", known are peer_ip, peer_pod, peer_port, process`},
		{"external-labels", "town", `unknown external label "town", known are`},
		{"daemonset", "podmeter", "namespace/name is expected, such as podmeter/podmeter"},
		{"remote-write-labels", "prod", "name=value is expected, such as cluster=prod"},
	} {
		for _, origin := range origins {
			t.Run(test.flag+" "+test.value+" by "+origin.name, func(t *testing.T) {
				got, place := origin.run(t, test.flag, test.value)
				line, _, _ := strings.Cut(strings.TrimPrefix(got.stderr, "podmeter: "), "\n")
				if got.code != 2 || !strings.HasPrefix(line, place) || !strings.Contains(line, test.want) ||
					strings.Contains(line, "is it") != strings.Contains(test.want, "is it") {
					t.Errorf("got %d and %q, want 2, %q and %q", got.code, line, place, test.want)
				}
				if shown := strings.Trim(fmt.Sprintf("%q", test.value), `"`); !strings.Contains(line, shown) {
					t.Errorf("got %q, want the value in it", line)
				}
				if parsers.MatchString(line) {
					t.Errorf("got %q, want no word of who parses", line)
				}
			})
		}
	}
}

// Whatever a flag is, nonsense gets an answer without the parser's words, and so does nothing.
func TestFaultsOfEveryFlag(t *testing.T) {
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	config := agent.Defaults()
	agent.AddFlags(fs, &config)
	fs.VisitAll(func(flag *pflag.Flag) {
		if flag.Name == "config" {
			return
		}
		for _, value := range []string{"", "\t", `no"nsense`, "1,2", "-1", "!"} {
			for _, origin := range origins {
				got, place := origin.run(t, flag.Name, value)
				line, _, _ := strings.Cut(strings.TrimPrefix(got.stderr, "podmeter: "), "\n")
				if parsers.MatchString(line) {
					t.Errorf("%s %q by %s: got %q, want no word of who parses", flag.Name, value, origin.name, line)
				}
				if got.code == 2 && !strings.HasPrefix(line, strings.TrimSuffix(place, " ")) && !strings.HasPrefix(line, "--identity ") {
					t.Errorf("%s %q by %s: got %q, want %q named", flag.Name, value, origin.name, line, place)
				}
				if value == "" && origin.name == "environment" && got.code != 0 {
					t.Errorf("%s: got %q for an empty variable, want it taken for none", flag.Name, line)
				}
			}
		}
	})
}

// Names that do not exist are answered with those that do.
func TestFaultsOfNames(t *testing.T) {
	for _, test := range []struct {
		name, want string
		environ    []string
		args       []string
		file       string
	}{
		{name: "flag", args: []string{"agent", "--drain-intervall=5s"}, want: "unknown flag: --drain-intervall; is it --drain-interval?\n"},
		{name: "flag in capitals", args: []string{"agent", "--logLevel=info"}, want: "unknown flag: --logLevel; is it --log-level?\n"},
		{name: "flag of nobody", args: []string{"agent", "--frobnicate"}, want: "unknown flag: --frobnicate\n"},
		{name: "flag without a value", args: []string{"agent", "--listen"}, want: "--listen: a value is expected, the host:port, after a space or an equals sign\n"},
		{name: "switch with a space", args: []string{"agent", "--page", "false"},
			want: `"false" is too much: 'podmeter agent' takes flags only; a flag that is true or false takes its value after an equals sign, as in --page=false` + "\n"},
		{name: "key", file: "drain_interval: 5s\n", want: "FILE:1: drain_interval: no such setting; is it drain-interval? 'podmeter agent --help' lists them\n"},
		{name: "key of nobody", file: "frobnicate: 5s\n", want: "FILE:1: frobnicate: no such setting; 'podmeter agent --help' lists them\n"},
		{name: "file in the file", file: "config: a.yaml\n", want: "FILE:1: config: no such setting; a file cannot name another\n"},
		{name: "tab", file: "log-level: info\n\tscope: node\n", want: "; line 2 begins with a tab, and YAML takes spaces alone\n"},
		{name: "variable", environ: []string{"PODMETER_LISTN=x", "PODMETER_FROBNICATE=x", "PODMETER_SCOPE=pod"}, args: []string{"agent"},
			want: `PODMETER_SCOPE in the environment: "pod": cluster or node is expected` + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "podmeter.yaml")
			if test.file != "" {
				if err := os.WriteFile(file, []byte(test.file), 0o600); err != nil {
					t.Fatal(err)
				}
				test.args = []string{"agent", "--config", file}
			}
			got := new(recorder).run(t, test.environ, test.args...)
			if want := strings.ReplaceAll(test.want, "FILE", file); got.code != 2 || !strings.Contains(got.stderr, want) {
				t.Errorf("got %+v, want 2 and %q", got, want)
			}
		})
	}
}

// What only shows when the agent starts names where the value was written, too.
func TestFaultsOfTheStartAreLocated(t *testing.T) {
	fault := agent.Usage(errors.Join(agent.NewFault("map-memory", "64G", "too much")))
	got := (&recorder{err: fault}).run(t, []string{"PODMETER_MAP_MEMORY=64G"}, "agent", "--log-level=error")
	if want := "podmeter: PODMETER_MAP_MEMORY in the environment: 64G: too much\n"; got.code != 2 || !strings.HasPrefix(got.stderr, want) {
		t.Errorf("got %+v, want 2 and %q", got, want)
	}
}
