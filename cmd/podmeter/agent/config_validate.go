// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/metrics/guard"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	minDrainInterval = 100 * time.Millisecond
	maxDrainInterval = 10 * time.Minute

	// The bounds of MapMemory: below, a set holds next to nothing; above, somebody
	// mistook the unit.
	minMapMemory = 1 << 20
	maxMapMemory = 1 << 38

	// minSpool is the least RemoteWriteSpoolLimit: below, an interval may not fit.
	minSpool = 1 << 20

	// maxSocketPath is what sun_path holds (unix(7)) less the final NUL.
	maxSocketPath = 107
)

// Validate checks a configuration after [Config.Complete]. Every fault found is
// in the error, a [UsageError]. Whether files can be read is left to whoever opens them.
func (c Config) Validate() error {
	var faults []error
	for _, check := range []func() []error{
		c.checkChoices, c.checkServing, c.checkMeter, c.checkUplinks, c.checkPaths, c.checkIdentity, c.checkDaemonSet,
		c.checkSeries, c.checkRemoteWrite,
	} {
		faults = append(faults, check()...)
	}
	return Usage(errors.Join(faults...))
}

// ValidatePaths checks PinPath and StateDir alone, for a command that knows no
// more. The error is a [UsageError].
func (c Config) ValidatePaths() error { return Usage(errors.Join(c.checkPaths()...)) }

func (c Config) checkChoices() (faults []error) {
	for _, choice := range []struct{ flag, value string }{
		{"attach", c.Attach}, {"xdp-mode", c.XDPMode}, {"identity", c.Identity}, {"scope", c.Scope},
		{"service-translation", c.ServiceTranslation}, {"sockets", c.Sockets}, {"host-pods", c.HostPods},
		{"log-level", c.LogLevel}, {"log-format", c.LogFormat},
	} {
		if err := CheckChoice(choice.flag, choice.value); err != nil {
			faults = append(faults, err)
		}
	}
	return faults
}

// CheckChoice says what is wrong with the value of a flag that takes one of [Choices].
func CheckChoice(flag, value string) error {
	if slices.Contains(Choices(flag), value) {
		return nil
	}
	return NewFault(flag, strconv.Quote(value), "%s is expected", oneOf(flag))
}

// CheckListen says what is wrong with the value of --listen. The example is of a good one.
func CheckListen(address, example string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return NewFault("listen", strconv.Quote(address), "host:port is expected, such as %s", example)
	}
	if _, err := net.LookupPort("tcp", port); err != nil || port == "" {
		return NewFault("listen", strconv.Quote(address), "%q is no port; 0 to 65535 is expected", port)
	}
	return nil
}

// CheckPageHosts says what is wrong with the value of --page-hosts.
func CheckPageHosts(hosts []string) error {
	var faults []error
	for _, host := range hosts {
		if host != guard.AnyHost && len(validation.IsDNS1123Subdomain(strings.ToLower(host))) > 0 {
			faults = append(faults, NewFault("page-hosts", strconv.Quote(host), "a name without scheme and port is expected, such as podmeter.example.com"))
		}
	}
	return errors.Join(faults...)
}

func (c Config) checkServing() (faults []error) {
	if err := CheckListen(c.Listen, ":9739 or 127.0.0.1:9739"); err != nil {
		faults = append(faults, err)
	}
	if err := CheckPageHosts(c.PageHosts); err != nil {
		faults = append(faults, err)
	}
	if !filepath.IsAbs(c.Socket) {
		faults = append(faults, NewFault("socket", strconv.Quote(c.Socket), "an absolute path is expected, such as %s", DefaultSocket))
	}
	if len(c.Socket) > maxSocketPath {
		faults = append(faults, NewFault("socket", strconv.Quote(c.Socket), "the path of a unix socket has at most %d bytes", maxSocketPath))
	}
	return faults
}

func (c Config) checkMeter() (faults []error) {
	for _, glob := range c.Interfaces {
		if !datapath.ValidGlob(glob) {
			faults = append(faults, NewFault("interfaces", strconv.Quote(glob), "a glob is expected, such as 'veth*' or '!docker*'"))
		}
	}
	if c.DrainInterval < minDrainInterval || c.DrainInterval > maxDrainInterval {
		faults = append(faults, NewFault("drain-interval", c.DrainInterval, "%v to %v is expected", minDrainInterval, maxDrainInterval))
	}
	if c.MapMemory != 0 && (c.MapMemory < minMapMemory || c.MapMemory > maxMapMemory) {
		size, least, most := byteSize(c.MapMemory), byteSize(minMapMemory), byteSize(maxMapMemory)
		faults = append(faults, NewFault("map-memory", &size, "%v to %v is expected, or nothing for the default", &least, &most))
	}
	return faults
}

func (c Config) checkUplinks() (faults []error) {
	included := false
	for _, glob := range c.Uplinks {
		excludes := strings.HasPrefix(glob, "!")
		included = included || !excludes
		switch {
		case !datapath.ValidGlob(glob):
			faults = append(faults, NewFault("uplinks", strconv.Quote(glob), "a glob is expected, such as 'eth0' or '!eth1'"))
		case !excludes && slices.Contains(c.Interfaces, glob):
			faults = append(faults, NewFault("uplinks", strconv.Quote(glob), "--interfaces has it too: take it out of one of them"))
		}
	}
	if len(c.Uplinks) > 0 && !included {
		faults = append(faults, NewFault("uplinks", strconv.Quote(strings.Join(c.Uplinks, ",")), "none is included, only excluded; name one, such as 'eth0,!eth1'"))
	}
	if len(c.Uplinks) == 0 && c.XDPMode == XDPNative {
		faults = append(faults, NewFault("xdp-mode", c.XDPMode, "it is for uplinks, and there are no --uplinks: give them, or leave it off; pods' interfaces never get XDP"))
	}
	return faults
}

func (c Config) checkPaths() (faults []error) {
	why := unfitPinPath(c.PinPath)
	if why != "" {
		faults = append(faults, NewFault("pin-path", strconv.Quote(c.PinPath), "%s; such as %s", why, DefaultPinPath))
	}
	switch state := path.Clean(c.StateDir); {
	case !path.IsAbs(state) || state == "/":
		faults = append(faults, NewFault("state-dir", strconv.Quote(c.StateDir),
			"an absolute path to a directory of its own is expected, such as %s", DefaultStateDir))
	case within(state, "/sys") || why == "" && within(state, c.PinPath):
		faults = append(faults, NewFault("state-dir", strconv.Quote(c.StateDir), "files cannot be written there: bpffs and sysfs hold none"))
	}
	return faults
}

// unfitPinPath says why a directory cannot hold pins, empty if it may.
func unfitPinPath(pinPath string) string {
	const bpffs = "/sys/fs/bpf"
	clean := path.Clean(pinPath)
	switch {
	case !path.IsAbs(pinPath):
		return "an absolute path is expected"
	case clean == "/" || clean == bpffs:
		return "a directory of its own is expected, as others keep things there"
	case within(clean, "/proc") || within(clean, "/sys") && !within(clean, bpffs):
		return "no bpffs can be there"
	case strings.Contains(path.Base(clean), "."), within(clean, bpffs) && strings.Contains(clean, "."):
		return "bpffs refuses names with dots"
	}
	return ""
}

// within reports whether a path is a directory or below it.
func within(name, directory string) bool {
	directory = path.Clean(directory)
	return name == directory || strings.HasPrefix(name, strings.TrimSuffix(directory, "/")+"/")
}

func (c Config) checkIdentity() (faults []error) {
	needs := func(flag, value, why string) {
		faults = append(faults, NewFault("identity", value, "%s", flag+" "+why))
	}
	static, kubernetes := c.Identity == IdentityStatic, c.Identity == IdentityKubernetes
	switch {
	case static && c.StaticFile == "":
		needs("--static-file", IdentityStatic, "is missing: it names the pods")
	case c.Identity != IdentityAuto && !static && c.StaticFile != "":
		needs("--static-file", c.Identity, "would not be read; give it up or choose --identity static")
	}
	switch {
	case c.Identity != IdentityAuto && !kubernetes && c.Kubeconfig != "":
		needs("--kubeconfig", c.Identity, "would not be read; give it up or choose --identity kubernetes")
	case kubernetes && c.NodeName == "":
		needs("--node-name", IdentityKubernetes, "is missing: give it, or set NODE_NAME from the downward API (fieldRef spec.nodeName)")
	}
	for _, prefix := range c.NAT64Prefix {
		if _, err := flows.ParseNAT64Prefix(prefix); err != nil {
			faults = append(faults, NewFault("nat64-prefix", strconv.Quote(prefix), "%v", err))
		}
	}
	if c.CNICache != "" && !filepath.IsAbs(c.CNICache) {
		faults = append(faults, NewFault("cni-cache", strconv.Quote(c.CNICache), "an absolute path is expected, such as %s, or nothing", DefaultCNICache))
	}
	if !filepath.IsAbs(c.CgroupRoot) {
		faults = append(faults, NewFault("cgroup-root", strconv.Quote(c.CgroupRoot), "an absolute path is expected, such as %s", DefaultCgroups))
	}
	if c.Sockets == ModeOn && (static || c.Identity == IdentityNone) {
		faults = append(faults, NewFault("sockets", c.Sockets, "the API server tells the names of containers, and identity is %s", c.Identity))
	}
	if c.HostPods == ModeOn && (static || c.Identity == IdentityNone) {
		faults = append(faults, NewFault("host-pods", c.HostPods, "the API server tells which pods are in the node's network, and identity is %s", c.Identity))
	}
	if c.Scope == ScopeNode && (static || c.Identity == IdentityNone) {
		faults = append(faults, NewFault("scope", c.Scope, "only the kubernetes identity has a scope, and identity is %s", c.Identity))
	}
	return faults
}

// nat64 are the prefixes of --nat64-prefix, which has been checked.
func (c Config) nat64() flows.NAT64 {
	var own []netip.Prefix
	for _, text := range c.NAT64Prefix {
		if prefix, err := flows.ParseNAT64Prefix(text); err == nil {
			own = append(own, prefix)
		}
	}
	return flows.NewNAT64(own)
}

func (c Config) checkRemoteWrite() []error {
	faults := c.checkRemoteWriteURLs()
	if !filepath.IsAbs(c.RemoteWriteSpool) {
		faults = append(faults, NewFault("remote-write-spool", strconv.Quote(c.RemoteWriteSpool), "an absolute path is expected, such as %s", DefaultSpool))
	}
	if c.RemoteWriteInterval < time.Second {
		faults = append(faults, NewFault("remote-write-interval", c.RemoteWriteInterval, "1s or more is expected"))
	}
	if least := byteSize(minSpool); c.RemoteWriteSpoolLimit < minSpool {
		size := byteSize(c.RemoteWriteSpoolLimit)
		faults = append(faults, NewFault("remote-write-spool-limit", &size, "%v or more is expected", &least))
	}
	if _, err := c.remoteWriteLabels(); err != nil {
		faults = append(faults, err)
	}
	return faults
}

func (c Config) checkDaemonSet() (faults []error) {
	if c.DaemonSet == "" {
		return nil
	}
	namespace, name := c.daemonSet()
	if validation.IsDNS1123Label(namespace) != nil || validation.IsDNS1123Subdomain(name) != nil {
		faults = append(faults, NewFault("daemonset", strconv.Quote(c.DaemonSet), "namespace/name is expected, such as podmeter/podmeter"))
	}
	if c.NodeName == "" && c.Identity != IdentityKubernetes { // whose check says it too
		faults = append(faults, NewFault("daemonset", strconv.Quote(c.DaemonSet), "--node-name is missing: whether the DaemonSet selects this node is asked"))
	}
	return faults
}

// daemonSet splits the name of the agent's own DaemonSet.
func (c Config) daemonSet() (namespace, name string) {
	namespace, name, _ = strings.Cut(c.DaemonSet, "/")
	return namespace, name
}

func (c Config) checkSeries() (faults []error) {
	for _, label := range c.FlowLabels {
		if _, err := flows.ParseOptional([]string{label}, nil); err != nil {
			faults = append(faults, NewFault("flow-labels", strconv.Quote(label), "%v", err))
		}
	}
	for _, label := range c.ExternalLabels {
		if _, err := flows.ParseOptional(nil, []string{label}); err != nil {
			faults = append(faults, NewFault("external-labels", strconv.Quote(label), "%v", err))
		}
	}
	for _, limit := range []struct {
		flag  string
		value int
	}{{"flow-series-limit", c.FlowSeriesLimit}, {"external-series-limit", c.ExternalSeriesLimit}, {"uplink-series-limit", c.UplinkSeriesLimit}} {
		if limit.value < 0 {
			faults = append(faults, NewFault(limit.flag, limit.value, "0 or more is expected; with 0 all are folded"))
		}
	}
	if c.FlowIdle <= c.DrainInterval {
		faults = append(faults, NewFault("flow-idle", c.FlowIdle,
			"more than --drain-interval (%v) is expected, or flows retire between two drains", c.DrainInterval))
	}
	if c.SeriesGrace <= 0 {
		faults = append(faults, NewFault("series-grace", c.SeriesGrace, "more than 0 is expected, and more than the scrape interval is wise"))
	}
	return faults
}
