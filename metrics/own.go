// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/prometheus/client_golang/prometheus"

// The values of the label family.
const (
	familyFlow     = "flow"
	familyExternal = "external"
	familyUplink   = "uplink"
)

// ownMetrics are the metrics of the agent itself.
func ownMetrics() []ownMetric {
	all := exactness()
	all = append(all, work()...)
	all = append(all, coverage()...)
	all = append(all, cardinality()...)
	return append(all, identities()...)
}

// exactness tells what is not as it should be about the bytes.
func exactness() []ownMetric {
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	return []ownMetric{
		own(counter, "conservation_error_bytes_total",
			"Bytes by which totals and flows disagree where nothing was evicted, absolute; must stay 0.",
			nil, scalar(func(s *state) float64 { return float64(s.ConservationErrorBytes) })),
		own(counter, "lost_bytes_total",
			"Bytes that were counted and are on no series, by reason.",
			[]string{"reason"}, func(s *state, emit emit) { each(emit, s.options.Known.LostReasons, s.LostBytes) }),
		own(counter, "residue_bytes_total",
			"Bytes of flows that the kernel evicted before they were drained; exported as unattributed.",
			nil, scalar(func(s *state) float64 { return float64(s.ResidueBytes) })),
		own(counter, "unplaced_bytes_total",
			"Bytes of flows that could not be inserted; exported as unattributed.",
			nil, scalar(func(s *state) float64 { return float64(s.UnplacedBytes) })),
		own(counter, "checkpoint_errors_total",
			"Checkpoints that could not be written: a restart would not know what came since.",
			nil, scalar(func(s *state) float64 { return float64(s.CheckpointErrors) })),
		own(gauge, "interface_difference_packets",
			"Packets that the pod's interfaces counted since the attachment, minus podmeter's.",
			[]string{"namespace", "pod", "direction"}, differences),
		own(gauge, "unbound_bytes",
			"Bytes that wait for the identity of their interface's pod.",
			nil, scalar(func(s *state) float64 { return float64(s.UnboundBytes) })),
	}
}

// work tells of drains and scrapes.
func work() []ownMetric {
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	return []ownMetric{
		own(counter, "drained_entries_total", "Flow entries read from the kernel.",
			nil, scalar(func(s *state) float64 { return float64(s.DrainedEntries) })),
		own(gauge, "last_drain_timestamp_seconds", "When the last drain ended, 0 if there was none.",
			nil, scalar(func(s *state) float64 { return seconds(s.LastDrain) })),
		own(counter, "snapshot_errors_total", "Scrapes that had to leave the traffic out.",
			nil, scalar(func(s *state) float64 { return float64(s.errors) })),
		own(counter, "packets_parsed_total", "Packets by how parsing their headers ended.",
			[]string{"outcome"}, func(s *state, emit emit) { each(emit, s.options.Known.Outcomes, s.ParsedPackets) }),
	}
}

// coverage tells what is metered.
func coverage() []ownMetric {
	podStates := []string{PodMetered, PodPartly, PodUnmetered, PodHostNetwork}
	return []ownMetric{
		own(prometheus.GaugeValue, "interfaces", "Interfaces of pods by state.", []string{"state"},
			func(s *state, emit emit) { each(emit, s.options.Known.InterfaceStates, s.Interfaces) }),
		own(prometheus.GaugeValue, "uplinks", "Uplinks by state.", []string{"state"},
			func(s *state, emit emit) { each(emit, s.options.Known.UplinkStates, s.Uplinks) }),
		own(prometheus.GaugeValue, "pods", "Pods of this node by whether they are metered.", []string{"state"},
			func(s *state, emit emit) { each(emit, podStates, s.Pods) }),
		own(prometheus.GaugeValue, "yielded_cgroups",
			"Cgroups that podmeter does not attach to, as a foreign program there would no longer run.", []string{"programs"},
			func(s *state, emit emit) { each(emit, []string{YieldedHostPods, YieldedSockets}, s.Yielded) }),
		own(prometheus.GaugeValue, "unpopulated_pods",
			"Running pods of this node in whose cgroup there is no process: their sockets are not known, and in the node's network they are not metered.",
			nil, scalar(func(s *state) float64 { return float64(s.Unpopulated) })),
	}
}

// cardinality tells of the limits.
func cardinality() []ownMetric {
	labels := []string{"family"}
	return []ownMetric{
		own(prometheus.CounterValue, "folded_bytes_total",
			"Bytes that a series limit folded into the rows other of a pod or an uplink.", labels,
			func(s *state, emit emit) {
				emit(float64(s.stats.foldedFlow), familyFlow)
				emit(float64(s.stats.foldedExternal), familyExternal)
				emit(float64(s.stats.foldedUplink), familyUplink)
			}),
		own(prometheus.GaugeValue, "series", "Label sets that count towards the limit of a family.", labels,
			func(s *state, emit emit) {
				emit(float64(s.stats.flowSets), familyFlow)
				emit(float64(s.stats.externalSets), familyExternal)
				emit(float64(s.stats.uplinkSets), familyUplink)
			}),
		own(prometheus.GaugeValue, "series_limit", "The most label sets that a family has.", labels,
			func(s *state, emit emit) {
				emit(float64(s.options.FlowSeriesLimit), familyFlow)
				emit(float64(s.options.ExternalSeriesLimit), familyExternal)
				emit(float64(s.options.UplinkSeriesLimit), familyUplink)
			}),
	}
}

// identities tells how well the owners of addresses are known.
func identities() []ownMetric {
	const gauge = prometheus.GaugeValue
	return []ownMetric{
		own(gauge, "geoip_databases", "Databases of places by whether they are in use.", []string{"state"},
			func(s *state, emit emit) {
				each(emit, []string{GeoIPCurrent, GeoIPOutdated, GeoIPMissing}, s.GeoIPDatabases)
			}),
		own(gauge, "identity_objects", "Objects in the identity cache by kind.", []string{"kind"},
			func(s *state, emit emit) { each(emit, s.options.Known.IdentityKinds, s.IdentityObjects) }),
		own(prometheus.CounterValue, "identity_bounded_total",
			"Objects of the identity source of which something was cut or left out, by the bound that they were beyond.",
			[]string{"bound"}, func(s *state, emit emit) { each(emit, nil, s.IdentityBounded) }),
		own(gauge, "identity_synced", "Whether the identity source has delivered all objects once.",
			nil, scalar(func(s *state) float64 {
				if s.IdentitySynced {
					return 1
				}
				return 0
			})),
		own(gauge, "identity_last_update_timestamp_seconds",
			"When the identity source was last known to be current; absent for a source that cannot be out of date.",
			nil, func(s *state, emit emit) {
				if !s.IdentityUpdated.IsZero() {
					emit(seconds(s.IdentityUpdated))
				}
			}),
		own(prometheus.CounterValue, "service_lookups_total",
			"Lookups of the backends of connections to Services, by result.", []string{"result"},
			func(s *state, emit emit) {
				each(emit, []string{LookupFound, LookupMissing, LookupSkipped, LookupError}, s.ServiceLookups)
			}),
		own(prometheus.CounterValue, "sockets_total",
			"Sockets that were seen, by what came of them; absent where sockets are not looked at.", []string{"outcome"},
			func(s *state, emit emit) { each(emit, nil, s.Sockets) }),
		own(prometheus.CounterValue, "drained_connections_total",
			"Ends of TCP connections whose health was read from the kernel, once an epoch, by what came of them; absent where sockets are not looked at.",
			[]string{"result"}, func(s *state, emit emit) { each(emit, nil, s.TCPEntries) }),
	}
}
