// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/prometheus/client_golang/prometheus"
)

// The states of a pod of this node, of podmeter_pods.
const (
	PodMetered     = "metered"      // all of its interfaces
	PodPartly      = "partly"       // an interface is partial, shadowed or bypassed
	PodUnmetered   = "unmetered"    // none of its interfaces
	PodHostNetwork = "host_network" // it has none of its own, and its cgroup is not metered or empty
)

// The programs that are not attached to a cgroup for a foreign one's sake, of
// podmeter_yielded_cgroups.
const (
	YieldedHostPods = "host_pods" // those of a pod in the node's network
	YieldedSockets  = "sockets"   // those that see sockets
)

// The states of a database of places, of podmeter_geoip_databases.
const (
	GeoIPCurrent  = "current"  // what is in the file is in use
	GeoIPOutdated = "outdated" // the file cannot be used, an earlier version of it is
	GeoIPMissing  = "missing"  // none is in use
)

// The results of looking up the backend of a connection to a Service, of
// podmeter_service_lookups_total.
const (
	LookupFound   = "found"
	LookupMissing = "missing" // the kernel does not know the connection any more
	LookupSkipped = "skipped" // not looked up: there were too many
	LookupError   = "error"
)

// What came of the health of an end of a TCP connection, of
// podmeter_drained_connections_total.
const (
	TCPAttributed = "attributed"
	TCPNoPod      = "no_pod"  // its cgroup is none of a pod
	TCPUnbound    = "unbound" // no interface of its pod is known
)

// Agent are the agent's own values at one moment. Counters begin at 0 with the
// process or before; they never go down.
type Agent struct {
	// ConservationErrorBytes is the sum of absolute errors; it must stay 0.
	ConservationErrorBytes uint64
	// LostBytes are those that were counted and land on no series, by reason.
	LostBytes map[string]uint64
	// ResidueBytes are of flows that the LRU evicted, UnplacedBytes of flows
	// that could not be inserted.
	ResidueBytes, UnplacedBytes uint64
	// UnboundBytes wait now for the identity of their interface's pod.
	UnboundBytes uint64
	// DrainedEntries is the number of flow entries read.
	DrainedEntries uint64
	// LastDrain is when the last drain ended, zero if there was none.
	LastDrain time.Time
	// CheckpointErrors counts checkpoints that could not be written.
	CheckpointErrors uint64
	// Differences of one pod's interfaces are added.
	Differences []Difference
	// Interfaces counts them by state, Pods by the states of this package.
	Interfaces, Pods map[string]int
	// Yielded counts the cgroups that are left to foreign programs, by podmeter's programs.
	Yielded map[string]int
	// Unpopulated counts the running pods in whose cgroup there is no process.
	Unpopulated int
	// GeoIPDatabases counts the databases of places by the states of this package.
	GeoIPDatabases map[string]int
	// Uplinks counts the metered uplinks by state.
	Uplinks map[string]int
	// ParsedPackets is the number of packets by how parsing ended.
	ParsedPackets map[string]uint64
	// IdentityObjects is the number of objects in the identity cache by kind.
	IdentityObjects map[string]int
	// IdentityBounded counts objects of which something was cut or left out, by the bound
	// that they were beyond.
	IdentityBounded map[string]uint64
	// IdentitySynced is whether the first list of all objects has arrived.
	IdentitySynced bool
	// IdentityUpdated is when the source was last known to be current, zero if
	// there is none that could be out of date.
	IdentityUpdated time.Time
	// ServiceLookups counts lookups of the backends of Services, by the results of this
	// package.
	ServiceLookups map[string]uint64
	// Sockets counts the sockets that were seen by what came of them; empty if they are
	// not looked at.
	Sockets map[string]uint64
	// TCPEntries counts the ends of TCP connections whose health was drained by what came
	// of them; empty if sockets are not looked at.
	TCPEntries map[string]uint64
}

// Difference is the packets that interfaces of a pod counted since the
// attachment, minus ours.
type Difference struct {
	Namespace, Pod string
	Direction      flows.Direction
	Packets        int64
}

// state is what the agent's own metrics are read from.
type state struct {
	Agent
	options *Options
	stats   stats
	errors  uint64
}

// emit sends a value with label values in the order of the description.
type emit func(value float64, labels ...string)

// ownMetric is one of the agent's own.
type ownMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*state, emit)
}

func (m *ownMetric) collect(s *state, ch chan<- prometheus.Metric) {
	m.read(s, func(value float64, labels ...string) {
		for i := range labels {
			labels[i] = valid(labels[i])
		}
		metric, err := prometheus.NewConstMetric(m.desc, m.kind, value, labels...)
		if err != nil {
			metric = prometheus.NewInvalidMetric(m.desc, err)
		}
		ch <- metric
	})
}

func own(kind prometheus.ValueType, name, help string, labels []string, read func(*state, emit)) ownMetric {
	return ownMetric{
		desc: prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil),
		kind: kind, read: read,
	}
}

// scalar is the reader of a metric without labels.
func scalar(value func(*state) float64) func(*state, emit) {
	return func(s *state, emit emit) { emit(value(s)) }
}

// each emits one value for each known label value and each that there is.
func each[V int | uint64](emit emit, known []string, values map[string]V) {
	written := make(map[string]bool, len(known))
	for _, label := range known {
		if !written[label] {
			written[label] = true
			emit(float64(values[label]), label)
		}
	}
	for label, value := range values {
		if !written[label] {
			emit(float64(value), label)
		}
	}
}

// seconds is a time as Prometheus writes it, 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

func differences(s *state, emit emit) {
	sums := make(map[Difference]int64)
	for _, d := range s.Differences {
		key := Difference{Namespace: valid(d.Namespace), Pod: valid(d.Pod), Direction: d.Direction}
		sums[key] += d.Packets
	}
	for key, packets := range sums {
		emit(float64(packets), key.Namespace, key.Pod, key.Direction.String())
	}
}
