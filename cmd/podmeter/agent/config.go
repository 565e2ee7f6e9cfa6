// SPDX-License-Identifier: Apache-2.0

// Package agent is what 'podmeter agent' does: it takes a [Config] from flags,
// environment and file, wires the datapath, the identity sources and the
// exporters together, and tells its state as a [Status].
package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Config is everything that a user can choose of an agent, one field a flag.
// [Defaults] gives a valid one; [AddFlags], [Load], [Config.Complete] and
// [Config.Validate], in this order, make one from what the user wrote.
type Config struct {
	// ConfigFile is the YAML file that settings were read from, empty for none.
	ConfigFile string

	// Listen is the host:port of /metrics, /healthz and /readyz.
	Listen string
	// WebConfigFile is exporter-toolkit's, for TLS and basic auth; empty for none.
	WebConfigFile string
	// Page serves the live page at /.
	Page bool
	// PageHosts are names by which a browser may ask, besides addresses, localhost and the
	// node's name; * for any.
	PageHosts []string
	// Pprof serves /debug/pprof as well.
	Pprof bool
	// Socket is the path of the unix socket that the status command talks to.
	Socket string

	// Interfaces are globs, excluding with a leading !; empty for every veth
	// whose peer is in another network namespace.
	Interfaces []string
	// Uplinks are globs of the interfaces that lead out of the node; none by default.
	Uplinks []string
	// XDPMode is off or native: how what uplinks receive is metered.
	XDPMode string
	// Attach is auto, tcx or netlink.
	Attach string
	// DrainInterval is the time between two drains of the maps.
	DrainInterval time.Duration
	// MapMemory is the bytes that both sets of maps may take, 0 for the default.
	MapMemory uint64
	// PinPath is the directory on bpffs that holds the maps; StateDir the one
	// that holds what has to survive the agent besides them.
	PinPath, StateDir string

	// Identity is auto, kubernetes, static or none; [Config.Complete] leaves no auto.
	Identity string
	// Scope is cluster or node: whose pods the kubernetes identity watches.
	Scope string
	// Kubeconfig is a file for use outside a cluster, empty for the pod's own account.
	Kubeconfig string
	// CNICache is the directory of libcni's cache of results; empty for none.
	CNICache string
	// NodeName is the node's name in Kubernetes or in the static file.
	NodeName string
	// DaemonSet is the agent's own as namespace/name, empty for none: what the agent
	// leaves goes from a node that it does not want an agent on any more.
	DaemonSet string
	// StaticFile names pods and services by address; CIDRFile names ranges.
	StaticFile, CIDRFile string
	// NAT64Prefix are the prefixes of translators beside the well-known one.
	NAT64Prefix []string
	// GeoIP are MaxMind databases (.mmdb).
	GeoIP []string
	// GeoIPOptional is whether the agent starts without those that cannot be used.
	GeoIPOptional bool
	// ServiceTranslation is auto or off: whether the backends of Services are looked up.
	ServiceTranslation string
	// Sockets is auto, on or off: whether sockets tell the container and process of flows.
	Sockets string
	// HostPods is auto, on or off: whether pods in the node's network are metered.
	HostPods string
	// CgroupRoot is where the node's cgroup v2 hierarchy is mounted.
	CgroupRoot string

	// FlowLabels and ExternalLabels are the opt-in labels of both families.
	FlowLabels, ExternalLabels []string
	// RTTClassicBuckets is whether the histogram of RTTs has classic buckets as well.
	RTTClassicBuckets bool
	// FlowSeriesLimit and ExternalSeriesLimit are the most label sets of each.
	FlowSeriesLimit, ExternalSeriesLimit int
	// UplinkSeriesLimit is the most label sets of all uplinks.
	UplinkSeriesLimit int
	// LinkLocalPeers gives link-local and multicast peers and neighbour discovery rows as others have.
	LinkLocalPeers bool
	// FlowIdle is after how long without a byte a flow series is retired.
	FlowIdle time.Duration
	// SeriesGrace is how long the series of a pod outlive it.
	SeriesGrace time.Duration

	// RemoteWriteURLs are receivers of remote write; none by default.
	RemoteWriteURLs []string
	// RemoteWriteHTTPConfigFile has authentication, TLS and headers; empty for none.
	RemoteWriteHTTPConfigFile string
	// RemoteWriteLabels are name=value, added to all series that are written.
	RemoteWriteLabels []string
	// RemoteWriteInterval is the time between two samples of a series.
	RemoteWriteInterval time.Duration
	// RemoteWriteSpool is the folder of what waits to be sent, RemoteWriteSpoolLimit its
	// bytes for each receiver.
	RemoteWriteSpool      string
	RemoteWriteSpoolLimit uint64
	// RemoteWriteNativeHistograms sends these as well.
	RemoteWriteNativeHistograms bool

	// LogLevel is debug, info, warn or error, LogFormat text or json.
	LogLevel, LogFormat string
}

// The values of [Config.Identity].
const (
	IdentityAuto       = "auto"
	IdentityKubernetes = "kubernetes"
	IdentityStatic     = "static"
	IdentityNone       = "none"
)

// The values of [Config.XDPMode].
const (
	XDPOff    = "off"
	XDPNative = "native"
)

// The values of [Config.ServiceTranslation].
const (
	TranslationAuto = "auto"
	TranslationOff  = "off"
)

// The values of [Config.Sockets] and [Config.HostPods].
const (
	ModeAuto = "auto"
	ModeOn   = "on"
	ModeOff  = "off"
)

// The values of [Config.Scope].
const (
	ScopeCluster = "cluster"
	ScopeNode    = "node"
)

// The paths of an agent that was not told others.
const (
	DefaultSocket   = "/run/podmeter/agent.sock"
	DefaultPinPath  = "/sys/fs/bpf/podmeter"
	DefaultStateDir = "/run/podmeter/state"
	DefaultCNICache = "/var/lib/cni"
	DefaultCgroups  = "/sys/fs/cgroup"
	DefaultSpool    = "/var/lib/podmeter/remote-write"
)

// Defaults returns the configuration of an agent without flags.
func Defaults() Config {
	return Config{
		Listen:              ":9739",
		Socket:              DefaultSocket,
		XDPMode:             XDPOff,
		Attach:              "auto",
		DrainInterval:       5 * time.Second,
		PinPath:             DefaultPinPath,
		StateDir:            DefaultStateDir,
		Identity:            IdentityAuto,
		Scope:               ScopeCluster,
		CNICache:            DefaultCNICache,
		ServiceTranslation:  TranslationAuto,
		Sockets:             ModeAuto,
		HostPods:            ModeAuto,
		CgroupRoot:          DefaultCgroups,
		FlowSeriesLimit:     2000,
		ExternalSeriesLimit: 1000,
		UplinkSeriesLimit:   1000,
		FlowIdle:            time.Hour,
		SeriesGrace:         5 * time.Minute,

		RemoteWriteInterval: 15 * time.Second, RemoteWriteSpool: DefaultSpool, RemoteWriteSpoolLimit: 256 << 20,

		LogLevel:  "info",
		LogFormat: "text",
	}
}

// Choices returns the values of a flag that takes one of a few, nil for any other.
func Choices(flag string) []string {
	switch flag {
	case "attach":
		return []string{"auto", "tcx", "netlink"}
	case "xdp-mode":
		return []string{XDPOff, XDPNative}
	case "identity":
		return []string{IdentityAuto, IdentityKubernetes, IdentityStatic, IdentityNone}
	case "scope":
		return []string{ScopeCluster, ScopeNode}
	case "service-translation":
		return []string{TranslationAuto, TranslationOff}
	case "sockets", "host-pods":
		return []string{ModeAuto, ModeOn, ModeOff}
	case formerRTTBuckets:
		return []string{"fine", "coarse", "off"}
	case "log-level":
		return []string{"debug", "info", "warn", "error"}
	case "log-format":
		return []string{"text", "json"}
	}
	return nil
}

// Complete decides what depends on where the agent runs: the identity source if
// it is auto, and the node's name if none was given. An IPv6 address before a port
// gets its brackets. environ is as
// [os.Environ] returns it, hostname as [os.Hostname].
func (c *Config) Complete(environ []string, hostname func() (string, error)) error {
	env := variables(environ)
	c.Listen = bracketed(c.Listen)
	if c.Identity == IdentityAuto {
		c.Identity = c.identityHere(env)
	}
	if c.NodeName == "" {
		c.NodeName = env["NODE_NAME"]
	}
	if c.NodeName != "" || c.Identity != IdentityNone { // a static file may name it
		return nil
	}
	name, err := hostname()
	if err != nil {
		return fmt.Errorf("name this node by its host name (or give --node-name): %w", err)
	}
	c.NodeName = name
	return nil
}

// bracketed puts an IPv6 address before a port in brackets: "$(HOST_IP):9739" in a
// manifest is "2001:db8::1:9739" on a node that has none of IPv4.
func bracketed(listen string) string {
	colon := strings.LastIndexByte(listen, ':')
	if colon < 0 {
		return listen
	}
	address, err := netip.ParseAddr(listen[:colon])
	if err != nil || !address.Is6() {
		return listen
	}
	return net.JoinHostPort(address.String(), listen[colon+1:])
}

// identityHere is what auto means: a file that the user named, else the API
// server if there is one.
func (c *Config) identityHere(env map[string]string) string {
	switch {
	case c.StaticFile != "":
		return IdentityStatic
	case c.Kubeconfig != "", env[apiVariable] != "":
		return IdentityKubernetes
	}
	return IdentityNone
}

// UsageError is the caller's fault: a wrong flag, or a file named by one that
// cannot be read or makes no sense. podmeter exits with 2 for it.
type UsageError struct{ Err error }

// Error implements error.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *UsageError) Unwrap() error { return e.Err }

// Usage marks err as a [UsageError]; nil stays nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return &UsageError{Err: err}
}

// IsUsage reports whether err, or an error that it wraps, is a [UsageError].
func IsUsage(err error) bool {
	var usage *UsageError
	return errors.As(err, &usage)
}
