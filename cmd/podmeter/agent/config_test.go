// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// complete returns the defaults as they are outside of a cluster.
func complete(t *testing.T) Config {
	t.Helper()
	c := Defaults()
	if err := c.Complete(nil, host); err != nil {
		t.Fatal(err)
	}
	return c
}

func host() (string, error) { return "host-a", nil }

func TestDefaultsAreValid(t *testing.T) {
	if err := complete(t).Validate(); err != nil {
		t.Errorf("got %v, want no fault", err)
	}
}

func TestValidateRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Config)
		want   string // in the fault
	}{
		{"attach", func(c *Config) { c.Attach = "xdp" }, `--attach "xdp": auto, tcx or netlink is expected`},
		{"scope", func(c *Config) { c.Scope = "pod" }, `--scope "pod": cluster or node`},
		{"sockets", func(c *Config) { c.Sockets = "yes" }, `--sockets "yes": auto, on or off is expected`},
		{"labels of remote write", func(c *Config) { c.RemoteWriteLabels = []string{"a=b", "cluster"} },
			"--remote-write-labels cluster: name=value is expected"},
		{"no URL of remote write", func(c *Config) { c.RemoteWriteURLs = []string{"prometheus:9090"} },
			`--remote-write-url "prometheus:9090": a URL is expected, such as https://`},
		{"unparsable URL of remote write", func(c *Config) { c.RemoteWriteURLs = []string{"http://a:secret@b:c/"} },
			"--remote-write-url cannot be parsed: a URL is expected"},
		{"reserved label of remote write", func(c *Config) { c.RemoteWriteLabels = []string{"__name__=b"} }, "name=value is expected"},
		{"interval of remote write", func(c *Config) { c.RemoteWriteInterval = time.Millisecond }, "--remote-write-interval 1ms: 1s or more is expected"},
		{"spool", func(c *Config) { c.RemoteWriteSpool = "here" }, `--remote-write-spool "here": an absolute path is expected`},
		{"small spool", func(c *Config) { c.RemoteWriteSpoolLimit = 5 }, "--remote-write-spool-limit 5: 1Mi or more is expected"},
		{"host pods", func(c *Config) { c.HostPods = "true" }, `--host-pods "true": auto, on or off is expected`},
		{"host pods without Kubernetes", func(c *Config) { c.HostPods = ModeOn },
			`--host-pods on: the API server tells which pods are in the node's network, and identity is none`},
		{"sockets without Kubernetes", func(c *Config) { c.Sockets = ModeOn },
			`--sockets on: the API server tells the names of containers, and identity is none`},
		{"cgroups at a relative path", func(c *Config) { c.CgroupRoot = "cgroup" },
			`--cgroup-root "cgroup": an absolute path is expected, such as /sys/fs/cgroup`},
		{"service translation", func(c *Config) { c.ServiceTranslation = "on" }, `--service-translation "on": auto or off`},
		{"log level", func(c *Config) { c.LogLevel = "loud" }, `--log-level "loud": debug, info, warn or error`},
		{"log format", func(c *Config) { c.LogFormat = "" }, `--log-format "": text or json`},
		{"identity", func(c *Config) { c.Identity = "dns" }, `--identity "dns": auto, kubernetes, static or none`},
		{"listen without port", func(c *Config) { c.Listen = "localhost" }, `--listen "localhost": host:port`},
		{"listen beyond ports", func(c *Config) { c.Listen = ":65536" }, `"65536" is no port`},
		{"listen on nothing", func(c *Config) { c.Listen = "127.0.0.1:" }, `"" is no port`},
		{"page's host with a port", func(c *Config) { c.PageHosts = []string{"*", "a.example", "b.example:80"} },
			`--page-hosts "b.example:80": a name without scheme and port`},
		{"relative socket", func(c *Config) { c.Socket = "agent.sock" }, `--socket "agent.sock": an absolute path`},
		{"long socket", func(c *Config) { c.Socket = "/" + strings.Repeat("s", 107) }, "at most 107 bytes"},
		{"no glob", func(c *Config) { c.Interfaces = []string{"veth*", "["} }, `--interfaces "[": a glob`},
		{"glob that excludes nothing", func(c *Config) { c.Interfaces = []string{"!"} }, `--interfaces "!": a glob`},
		{"a NAT64 prefix of IPv4", func(c *Config) { c.NAT64Prefix = []string{"64:ff9b:1::/96", "10.0.0.0/8"} },
			`--nat64-prefix "10.0.0.0/8": a prefix of IPv6 is expected`},
		{"a NAT64 prefix of another length", func(c *Config) { c.NAT64Prefix = []string{"64:ff9b:1::/112"} }, "32, 40, 48, 56, 64 or 96 bits"},
		{"an address for a NAT64 prefix", func(c *Config) { c.NAT64Prefix = []string{"64:ff9b:1::7/96"} }, "is it 64:ff9b:1::/96?"},
		{"no uplink glob", func(c *Config) { c.Uplinks = []string{"eth0", "["} }, `--uplinks "[": a glob`},
		{"no uplink", func(c *Config) { c.Uplinks = []string{"!eth0"} }, "--uplinks \"!eth0\": none is included"},
		{"an uplink that is a pod's", func(c *Config) { c.Interfaces, c.Uplinks = []string{"a", "b"}, []string{"b"} }, `--uplinks "b": --interfaces has it too`},
		{"negative uplink limit", func(c *Config) { c.UplinkSeriesLimit = -1 }, "--uplink-series-limit -1"},
		{"generic XDP", func(c *Config) { c.Uplinks, c.XDPMode = []string{"eth0"}, "generic" }, `--xdp-mode "generic": off or native`},
		{"XDP without uplinks", func(c *Config) { c.XDPMode = XDPNative }, "--xdp-mode native: it is for uplinks"},
		{"hasty drain", func(c *Config) { c.DrainInterval = 99 * time.Millisecond }, "--drain-interval 99ms: 100ms to 10m0s"},
		{"rare drain", func(c *Config) { c.DrainInterval = 11 * time.Minute }, "--drain-interval 11m0s"},
		{"negative drain", func(c *Config) { c.DrainInterval = -time.Second }, "--drain-interval -1s"},
		{"little memory", func(c *Config) { c.MapMemory = 64 }, "--map-memory 64: 1Mi to 256Gi"},
		{"much memory", func(c *Config) { c.MapMemory = 1 << 39 }, "--map-memory 512Gi"},
		{"relative pin path", func(c *Config) { c.PinPath = "podmeter" }, `--pin-path "podmeter": an absolute path`},
		{"all of bpffs", func(c *Config) { c.PinPath = "/sys/fs/bpf/" }, "a directory of its own"},
		{"root", func(c *Config) { c.PinPath = "/" }, "a directory of its own"},
		{"pins in sysfs", func(c *Config) { c.PinPath = "/sys/kernel/podmeter" }, "no bpffs can be there"},
		{"pins in proc", func(c *Config) { c.PinPath = "/proc/podmeter" }, "no bpffs can be there"},
		{"dot in a name", func(c *Config) { c.PinPath = "/sys/fs/bpf/v1.2" }, "names with dots"},
		{"dot in a parent", func(c *Config) { c.PinPath = "/sys/fs/bpf/v1.2/podmeter" }, "names with dots"},
		{"dot elsewhere", func(c *Config) { c.PinPath = "/run/eth0.100" }, "names with dots"},
		{"relative state", func(c *Config) { c.StateDir = "state" }, `--state-dir "state": an absolute path`},
		{"state in root", func(c *Config) { c.StateDir = "/" }, "--state-dir"},
		{"state on bpffs", func(c *Config) { c.StateDir = "/sys/fs/bpf/podmeter/state" }, "files cannot be written there"},
		{"state in the pin path", func(c *Config) { c.PinPath, c.StateDir = "/run/pm", "/run/pm/state" }, "files cannot be written there"},
		{"static without file", func(c *Config) { c.Identity = IdentityStatic }, "--static-file is missing"},
		{"file without static", func(c *Config) { c.StaticFile = "pods.yaml" }, "--static-file would not be read"},
		{"file with kubernetes", func(c *Config) { c.Identity, c.StaticFile = IdentityKubernetes, "p" }, "--static-file would not be read"},
		{"kubeconfig without kubernetes", func(c *Config) { c.Kubeconfig = "config" }, "--kubeconfig would not be read"},
		{"kubernetes without node", func(c *Config) { c.Identity, c.NodeName = IdentityKubernetes, "" }, "--node-name is missing"},
		{"relative CNI cache", func(c *Config) { c.CNICache = "cni" }, `--cni-cache "cni": an absolute path is expected`},
		{"scope without kubernetes", func(c *Config) { c.Scope = ScopeNode }, "--scope node: only the kubernetes identity"},
		{"DaemonSet without namespace", func(c *Config) { c.DaemonSet = "podmeter" }, `--daemonset "podmeter": namespace/name is expected`},
		{"DaemonSet of no name", func(c *Config) { c.DaemonSet = "podmeter/" }, `--daemonset "podmeter/"`},
		{"DaemonSet in two", func(c *Config) { c.DaemonSet = "a/b/c" }, `--daemonset "a/b/c"`},
		{"DaemonSet without node", func(c *Config) { c.DaemonSet, c.NodeName = "a/b", "" }, `--daemonset "a/b": --node-name is missing`},
		{"unknown label", func(c *Config) { c.FlowLabels = []string{"peer_ip", "pid"} }, `unknown flow label "pid"`},
		{"label of the other family", func(c *Config) { c.ExternalLabels = []string{"peer_ip"} }, `unknown external label "peer_ip"`},
		{"negative limit", func(c *Config) { c.FlowSeriesLimit = -1 }, "--flow-series-limit -1"},
		{"negative external limit", func(c *Config) { c.ExternalSeriesLimit = -5 }, "--external-series-limit -5"},
		{"idle within a drain", func(c *Config) { c.FlowIdle = c.DrainInterval }, "--flow-idle 5s: more than --drain-interval (5s)"},
		{"no grace", func(c *Config) { c.SeriesGrace = 0 }, "--series-grace 0s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := complete(t)
			test.change(&c)
			err := c.Validate()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want a fault with %q", err, test.want)
			}
			if !IsUsage(err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one fault that is wrong usage", err)
			}
		})
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	c := complete(t)
	c.Attach, c.Listen, c.SeriesGrace = "xdp", "", -time.Second
	err := c.Validate()
	if err == nil {
		t.Fatal("got no fault, want three")
	}
	for _, flag := range []string{"--attach", "--listen", "--series-grace"} {
		if !strings.Contains(err.Error(), flag) {
			t.Errorf("got %v, want a fault about %s too", err, flag)
		}
	}
}

func TestValidateAccepts(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Config)
	}{
		{"static", func(c *Config) { c.Identity, c.StaticFile = IdentityStatic, "pods.yaml" }},
		{"kubernetes of a node", func(c *Config) { c.Identity, c.Scope = IdentityKubernetes, ScopeNode }},
		{"a bpffs of its own below a dot", func(c *Config) { c.PinPath = "/mnt/v1.2/podmeter" }},
		{"globs", func(c *Config) { c.Interfaces = []string{"veth*", "!veth[0-9]", "eth0.100"} }},
		{"uplinks", func(c *Config) { c.Interfaces, c.Uplinks = []string{"veth*", "!eth0"}, []string{"eth*", "!eth1"} }},
		{"XDP", func(c *Config) { c.Uplinks, c.XDPMode = []string{"eth0"}, XDPNative }},
		{"no series but folded ones", func(c *Config) { c.FlowSeriesLimit, c.ExternalSeriesLimit = 0, 0 }},
		{"labels", func(c *Config) { c.FlowLabels, c.ExternalLabels = []string{"peer_ip"}, []string{"ip", "city"} }},
		{"any port", func(c *Config) { c.Listen = "[::1]:0" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := complete(t)
			test.change(&c)
			if err := c.Validate(); err != nil {
				t.Errorf("got %v, want no fault", err)
			}
		})
	}
}

func TestComplete(t *testing.T) {
	cluster := []string{"KUBERNETES_SERVICE_HOST=192.0.2.1", "NODE_NAME=node-a"}
	for _, test := range []struct {
		name           string
		given          Config
		environ        []string
		identity, node string
	}{
		{"bare host", Config{Identity: IdentityAuto}, nil, IdentityNone, "host-a"},
		{"host with a file, which may name it", Config{Identity: IdentityAuto, StaticFile: "f"}, nil, IdentityStatic, ""},
		{"host with a kubeconfig", Config{Identity: IdentityAuto, Kubeconfig: "f"}, nil, IdentityKubernetes, ""},
		{"in a cluster", Config{Identity: IdentityAuto}, cluster, IdentityKubernetes, "node-a"},
		{"a file in a cluster", Config{Identity: IdentityAuto, StaticFile: "f"}, cluster, IdentityStatic, "node-a"},
		{"chosen identity", Config{Identity: IdentityNone}, cluster, IdentityNone, "node-a"},
		{"chosen name", Config{Identity: IdentityAuto, NodeName: "n"}, cluster, IdentityKubernetes, "n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := test.given
			if err := c.Complete(test.environ, host); err != nil {
				t.Fatal(err)
			}
			got, want := [2]string{c.Identity, c.NodeName}, [2]string{test.identity, test.node}
			if got != want {
				t.Errorf("got identity and node %q, want %q", got, want)
			}
		})
	}
}

func TestCompleteBracketsAddresses(t *testing.T) {
	for given, want := range map[string]string{
		"2001:db8::1:9739": "[2001:db8::1]:9739", "[2001:db8::1]:9739": "[2001:db8::1]:9739",
		"fe80::1%eth0:9739": "[fe80::1%eth0]:9739", "::9739": "::9739", ":::9739": "[::]:9739",
		"198.51.100.1:9739": "198.51.100.1:9739", ":9739": ":9739", "localhost:9739": "localhost:9739", "9739": "9739",
	} {
		t.Run(given, func(t *testing.T) {
			c := Config{Listen: given}
			if err := c.Complete(nil, host); err != nil || c.Listen != want {
				t.Errorf("got %q, %v, want %q", c.Listen, err, want)
			}
		})
	}
}

func TestCompleteWithoutHostName(t *testing.T) {
	c, broken := Defaults(), errors.New("no name")
	err := c.Complete(nil, func() (string, error) { return "", broken })
	if !errors.Is(err, broken) || IsUsage(err) {
		t.Errorf("got %v, want %v, not as wrong usage", err, broken)
	}
}

func TestByteSize(t *testing.T) {
	for _, test := range []struct {
		given string
		want  uint64
		bad   bool
	}{
		{"64Mi", 64 << 20, false}, {"8Mi", 8 << 20, false}, {"100M", 100_000_000, false},
		{"1.5Gi", 3 << 29, false}, {"67108864", 64 << 20, false}, {"1e9", 1_000_000_000, false},
		{"", 0, false}, {"0", 0, false},
		{"64MB", 0, true}, {"64 Mi", 0, true}, {"-1Mi", 0, true}, {"100m", 0, true}, {"lots", 0, true},
		{"64E", 0, true},
	} {
		t.Run(test.given, func(t *testing.T) {
			var got byteSize
			err := got.Set(test.given)
			if (err != nil) != test.bad || err == nil && uint64(got) != test.want {
				t.Errorf("got %d and %v, want %d, an error: %v", got, err, test.want, test.bad)
			}
			var again byteSize
			if err := again.Set(got.String()); err != nil || again != got {
				t.Errorf("got %d and %v from %q, want %d", again, err, got.String(), got)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	if err := Usage(nil); err != nil {
		t.Errorf("got %v of no error, want none", err)
	}
	cause := errors.New("cause")
	if err := Usage(cause); !IsUsage(err) || !errors.Is(err, cause) || err.Error() != "cause" {
		t.Errorf("got %v, want wrong usage with its cause", err)
	}
	if IsUsage(cause) {
		t.Error("got wrong usage of any error")
	}
}

func TestChoicesHoldTheDefaults(t *testing.T) {
	c := Defaults()
	got := map[string]string{"attach": c.Attach, "identity": c.Identity, "scope": c.Scope, "service-translation": c.ServiceTranslation, "log-level": c.LogLevel, "log-format": c.LogFormat}
	want := make(map[string]string)
	for flag := range got {
		if f := agentFlags().Lookup(flag); f != nil {
			want[flag] = f.DefValue
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults of flags and configuration differ (-flag +configuration):\n%s", diff)
	}
}
