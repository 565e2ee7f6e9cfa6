// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
)

// AddFlags adds the agent's flags to fs. The values in c are their defaults, and
// c is where they go.
func AddFlags(fs *pflag.FlagSet, c *Config) {
	fs.StringVar(&c.ConfigFile, "config", c.ConfigFile,
		"YAML `file` of settings, keys being the names of these flags")
	addServingFlags(fs, c)
	addMeterFlags(fs, c)
	addIdentityFlags(fs, c)
	addSeriesFlags(fs, c)
	addRemoteWriteFlags(fs, c)
	fs.StringVar(&c.LogLevel, "log-level", c.LogLevel, "least `level` that is logged: "+oneOf("log-level"))
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "`format` of the log on stderr: "+oneOf("log-format"))
}

func addServingFlags(fs *pflag.FlagSet, c *Config) {
	fs.StringVar(&c.Listen, "listen", c.Listen,
		"`host:port` to serve /metrics, /healthz and /readyz on; without a host on every address; the port is what follows the "+
			"last colon, so that an IPv6 address needs no brackets")
	fs.StringVar(&c.WebConfigFile, "web-config-file", c.WebConfigFile,
		"`file` that turns on TLS and basic auth, in the exporter-toolkit format that node_exporter has")
	fs.BoolVar(&c.Page, "page", c.Page,
		"show this node live at http://HOST:PORT/ of the same address, to whoever may read /metrics: pods, edges, places and throughput")
	AddPageHostsFlag(fs, &c.PageHosts)
	fs.BoolVar(&c.Pprof, "pprof", c.Pprof, "serve /debug/pprof on the same address")
	AddSocketFlag(fs, &c.Socket)
}

// AddPageHostsFlag adds --page-hosts alone, for commands that serve to browsers as well.
func AddPageHostsFlag(fs *pflag.FlagSet, hosts *[]string) {
	fs.StringSliceVar(hosts, "page-hosts", *hosts,
		"`names` by which a browser may ask, such as an ingress's, besides addresses, localhost and the node's name; '*' for any: "+
			"then every site that a browser here visits can read what it may read")
}

// AddSocketFlag adds --socket alone, for commands that talk to an agent.
func AddSocketFlag(fs *pflag.FlagSet, socket *string) {
	fs.StringVar(socket, "socket", *socket,
		"unix socket, a `path`, mode 0600, by which 'podmeter status' asks the agent")
}

func addMeterFlags(fs *pflag.FlagSet, c *Config) {
	fs.StringSliceVar(&c.Interfaces, "interfaces", c.Interfaces,
		"`globs` of interfaces to meter, '!' before one excludes: 'cali*,!cali0'; without any that includes, "+
			"every veth whose peer is in another network namespace")
	fs.StringSliceVar(&c.Uplinks, "uplinks", c.Uplinks,
		"`globs` of interfaces that lead out of this node, to meter for podmeter_uplink_*: 'eth0' or 'bond*,!bond1'; "+
			"they have maps of their own, as large as those of pods, and one that --interfaces names too is an uplink")
	fs.StringVar(&c.XDPMode, "xdp-mode", c.XDPMode,
		"`mode` of metering what uplinks receive: "+oneOf("xdp-mode")+"; off takes TC, native an XDP program in the driver, "+
			"which sees frames as they came from the wire (Linux 5.18, and a driver that has it)")
	fs.StringVar(&c.Attach, "attach", c.Attach,
		"`mode` of attaching programs: "+oneOf("attach")+"; auto takes TCX where the kernel has it (6.6), "+
			"else a clsact filter by netlink")
	fs.DurationVar(&c.DrainInterval, "drain-interval", c.DrainInterval,
		"time between two drains of the maps; a map that fills up is drained sooner, and so is one that is scraped")
	fs.Var((*byteSize)(&c.MapMemory), "map-memory",
		"`memory` of both map sets, and again of those of --uplinks, such as 64Mi, 100M or plain bytes (default the larger of 64Mi and what "+
			"256 flows a set and possible CPU take)")
	AddPathFlags(fs, &c.PinPath, &c.StateDir)
}

// AddPathFlags adds --pin-path and --state-dir alone, for uninstalling.
func AddPathFlags(fs *pflag.FlagSet, pinPath, stateDir *string) {
	fs.StringVar(pinPath, "pin-path", *pinPath,
		"`directory` on bpffs for maps and links, which go on counting without an agent; one for each agent of a host")
	fs.StringVar(stateDir, "state-dir", *stateDir,
		"`directory` for what else has to survive the agent; one for each pin path")
}

func addIdentityFlags(fs *pflag.FlagSet, c *Config) {
	fs.StringVar(&c.Identity, "identity", c.Identity,
		"`source` that tells which pod has which address: "+oneOf("identity")+"; auto is static with --static-file, "+
			"kubernetes inside a cluster or with --kubeconfig, else none, which names pods after their interfaces")
	fs.StringVar(&c.Scope, "scope", c.Scope,
		"`extent` of what is watched with --identity kubernetes: "+oneOf("scope")+"; with node, peers on other nodes have no names")
	fs.StringVar(&c.Kubeconfig, "kubeconfig", c.Kubeconfig,
		"`file` to reach the API server with (default the pod's service account)")
	fs.StringVar(&c.CNICache, "cni-cache", c.CNICache,
		"`directory` of libcni's cache of results, which tells pods' interfaces with --identity kubernetes; it need not exist, "+
			"and is not read if empty")
	fs.StringVar(&c.NodeName, "node-name", c.NodeName,
		"`name` of this node (default the variable NODE_NAME; without Kubernetes also the host name)")
	fs.StringVar(&c.DaemonSet, "daemonset", c.DaemonSet,
		"`namespace/name` of the agent's own DaemonSet: told to end, the agent asks for it, and removes what it leaves on a node "+
			"that is not to have an agent any more, as 'podmeter uninstall' does (default none: everything stays)")
	fs.StringVar(&c.StaticFile, "static-file", c.StaticFile,
		"YAML `file` that names pods, services and nodes, for --identity static")
	fs.StringVar(&c.CIDRFile, "cidr-file", c.CIDRFile,
		"YAML `file` that names address ranges, for peers of kind cidr")
	fs.StringSliceVar(&c.NAT64Prefix, "nat64-prefix", c.NAT64Prefix,
		"`prefixes` of this network's NAT64, such as 64:ff9b:1::/96: peers in them are what the IPv4 address in theirs is, and placed "+
			"by it, as those in 64:ff9b::/96 always are; repeatable")
	fs.StringSliceVar(&c.GeoIP, "geoip", c.GeoIP,
		"MaxMind database `files` (.mmdb: country, city, ASN) for the places of external peers, of pods and of uplinks; repeatable; "+
			"read again when they change")
	fs.BoolVar(&c.GeoIPOptional, "geoip-optional", c.GeoIPOptional,
		"start without the files of --geoip that are missing or broken, and take them when they come")
	fs.StringVar(&c.ServiceTranslation, "service-translation", c.ServiceTranslation,
		"`mode` of finding the pods behind Services: "+oneOf("service-translation")+"; auto asks the kernel's conntrack table "+
			"for each connection to a Service, off shows the Service as the peer")
	fs.StringVar(&c.Sockets, "sockets", c.Sockets,
		"`mode` of finding the container and process of a flow by its socket, with --identity kubernetes: "+oneOf("sockets")+
			"; auto goes without where the node does not allow it, and says why")
	fs.StringVar(&c.HostPods, "host-pods", c.HostPods,
		"`mode` of metering the pods in the node's own network (hostNetwork), at their cgroups, with --identity kubernetes: "+
			oneOf("host-pods")+"; auto goes without where the node does not allow it, and says why")
	fs.StringVar(&c.CgroupRoot, "cgroup-root", c.CgroupRoot,
		"`directory` where the node's cgroup v2 hierarchy is mounted, or unified in it, for --sockets and --host-pods")
}

func addRemoteWriteFlags(fs *pflag.FlagSet, c *Config) {
	fs.StringSliceVar(&c.RemoteWriteURLs, "remote-write-url", c.RemoteWriteURLs,
		"`URLs` of receivers of Prometheus remote write, for nodes that cannot be scraped, such as "+
			"https://prometheus.example/api/v1/write; repeatable; protocol 2.0, or 1.0 where a receiver does not know that")
	fs.StringVar(&c.RemoteWriteHTTPConfigFile, "remote-write-http-config-file", c.RemoteWriteHTTPConfigFile,
		"YAML `file` with basic_auth, authorization, tls_config or http_headers for the receivers, in the format of promtool's --http.config.file")
	fs.StringSliceVar(&c.RemoteWriteLabels, "remote-write-labels", c.RemoteWriteLabels,
		"`labels` that are added to what is written, as name=value: cluster=prod,region=eu; job, instance and node are there already")
	fs.DurationVar(&c.RemoteWriteInterval, "remote-write-interval", c.RemoteWriteInterval, "time between two samples of a series that is written")
	fs.StringVar(&c.RemoteWriteSpool, "remote-write-spool", c.RemoteWriteSpool,
		"`directory` on a disk where what is to be written waits while a receiver is away, also for the next agent")
	fs.Var((*byteSize)(&c.RemoteWriteSpoolLimit), "remote-write-spool-limit",
		"`size` of what may wait for each receiver: beyond it the eldest is given up")
	fs.BoolVar(&c.RemoteWriteNativeHistograms, "remote-write-native-histograms", c.RemoteWriteNativeHistograms,
		"write native histograms beside the classic ones, by protocol 2.0; a receiver that does not take them refuses all")
}

func addSeriesFlags(fs *pflag.FlagSet, c *Config) {
	fs.StringSliceVar(&c.FlowLabels, "flow-labels", c.FlowLabels,
		"opt-in `labels` of podmeter_flow_*: peer_pod, peer_ip, peer_port, process; each multiplies the series")
	fs.StringSliceVar(&c.ExternalLabels, "external-labels", c.ExternalLabels,
		"opt-in `labels` of podmeter_external_*: city, latitude, longitude, ip, container")
	fs.BoolVar(&c.RTTClassicBuckets, rttClassicBuckets, c.RTTClassicBuckets,
		"classic buckets of podmeter_tcp_rtt_seconds as well, from 977 us to 4 s, for quantiles without native histograms: by text a row of TCP "+
			"health then has 14 series instead of 6; a Prometheus that scrapes native histograms has quantiles, of 5 series a row, without it")
	addFormerFlags(fs)
	fs.IntVar(&c.FlowSeriesLimit, "flow-series-limit", c.FlowSeriesLimit,
		"most label sets of podmeter_flow_*, a quarter of it for one pod, and an equal share for each; others are folded into peer=\"other\"")
	fs.IntVar(&c.ExternalSeriesLimit, "external-series-limit", c.ExternalSeriesLimit,
		"most label sets of podmeter_external_*, a quarter of it for one pod, and an equal share for each; others are folded into country=\"other\"")
	fs.IntVar(&c.UplinkSeriesLimit, "uplink-series-limit", c.UplinkSeriesLimit,
		"most label sets of podmeter_uplink_*, of all uplinks together; later ones are folded into peer=\"other\"")
	fs.BoolVar(&c.LinkLocalPeers, "link-local-peers", c.LinkLocalPeers,
		"rows by peer and container, within --flow-series-limit, for link-local and multicast peers, neighbour discovery and frames without an IP "+
			"header too; without it they are one row a pod, kind and protocol, outside of the limit")
	fs.DurationVar(&c.FlowIdle, "flow-idle", c.FlowIdle,
		"after this long without a byte a series goes to the podmeter_*_retired_* of its family")
	fs.DurationVar(&c.SeriesGrace, "series-grace", c.SeriesGrace,
		"how long the series of a pod or an uplink outlive it, so that its last bytes are scraped")
}

// oneOf lists the choices of a flag for a sentence: "auto, tcx or netlink".
func oneOf(flag string) string {
	choices := Choices(flag)
	last := len(choices) - 1
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}

// byteSize is a flag of bytes in Kubernetes' notation; 0 is the default.
type byteSize uint64

var errByteSize = errors.New("no whole number of bytes")

// Set implements [pflag.Value].
func (b *byteSize) Set(s string) error {
	if s == "" {
		*b = 0
		return nil
	}
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return errByteSize
	}
	n := q.Value()
	if n < 0 || q.CmpInt64(n) != 0 {
		return errByteSize
	}
	*b = byteSize(n)
	return nil
}

// String implements [pflag.Value]: in the unit that makes it short, as it is likely to
// have been written.
func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	binary := resource.NewQuantity(int64(*b), resource.BinarySI).String()
	decimal := resource.NewQuantity(int64(*b), resource.DecimalSI).String()
	if len(decimal) < len(binary) {
		return decimal
	}
	return binary
}

// Type implements [pflag.Value].
func (b *byteSize) Type() string { return "memory" }
