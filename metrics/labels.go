// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"net/netip"
	"strconv"

	"github.com/podmeter/podmeter/flows"
)

// podColumns are the labels that every family of traffic has.
func podColumns[L any]() []column[L] {
	return []column[L]{
		{"namespace", func(s *flows.Series[L]) string { return s.Namespace }},
		{"pod", func(s *flows.Series[L]) string { return s.Pod }},
	}
}

func retiredColumns() []column[flows.PeerKind] {
	return append(podColumns[flows.PeerKind](), column[flows.PeerKind]{
		"peer_kind", func(s *flows.Series[flows.PeerKind]) string { return s.Labels.String() },
	})
}

func flowColumns(o flows.Optional) []column[flows.FlowLabels] {
	type row = flows.Series[flows.FlowLabels]
	columns := append(podColumns[flows.FlowLabels](), []column[flows.FlowLabels]{
		{"container", func(s *row) string { return s.Labels.Container }},
		{"workload", func(s *row) string { return s.Labels.Workload.Name }},
		{"workload_type", func(s *row) string { return s.Labels.Workload.Type }},
		{"peer_kind", func(s *row) string { return s.Labels.PeerKind.String() }},
		{"peer_namespace", func(s *row) string { return s.Labels.PeerNamespace }},
		{"peer", func(s *row) string { return s.Labels.Peer }},
		{"peer_workload_type", func(s *row) string { return s.Labels.PeerWorkloadType }},
		{"service", func(s *row) string { return s.Labels.Service }},
		{"locality", func(s *row) string { return s.Labels.Locality.String() }},
		{"protocol", func(s *row) string { return s.Labels.Protocol.String() }},
	}...)
	optional := func(asked bool, name string, value func(*row) string) {
		if asked {
			columns = append(columns, column[flows.FlowLabels]{name, value})
		}
	}
	optional(o.PeerPod, "peer_pod", func(s *row) string { return s.Labels.PeerPod })
	optional(o.PeerIP, "peer_ip", func(s *row) string { return address(s.Labels.PeerIP) })
	optional(o.PeerPort, "peer_port", func(s *row) string { return port(s.Labels.PeerPort) })
	optional(o.Process, "process", func(s *row) string { return s.Labels.Process })
	return columns
}

func externalColumns(o flows.Optional) []column[flows.ExternalLabels] {
	type row = flows.Series[flows.ExternalLabels]
	columns := append(podColumns[flows.ExternalLabels](), []column[flows.ExternalLabels]{
		{"country", func(s *row) string { return s.Labels.Country }},
		{"asn", func(s *row) string { return s.Labels.ASN }},
		{"organization", func(s *row) string { return s.Labels.Organization }},
	}...)
	optional := func(asked bool, name string, value func(*row) string) {
		if asked {
			columns = append(columns, column[flows.ExternalLabels]{name, value})
		}
	}
	optional(o.City, "city", func(s *row) string { return s.Labels.City })
	optional(o.Latitude, "latitude", func(s *row) string { return s.Labels.Latitude })
	optional(o.Longitude, "longitude", func(s *row) string { return s.Labels.Longitude })
	optional(o.IP, "ip", func(s *row) string { return address(s.Labels.IP) })
	optional(o.Container, "container", func(s *row) string { return s.Labels.Container })
	return columns
}

// address is empty if there is none.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// port is empty for 0, which stands for none.
func port(p uint16) string {
	if p == 0 {
		return ""
	}
	return strconv.Itoa(int(p))
}

// cleanFlow returns a function that drops what was not asked for, and makes the
// rest valid.
func cleanFlow(o flows.Optional) func(flows.FlowLabels) flows.FlowLabels {
	return func(l flows.FlowLabels) flows.FlowLabels {
		l.Container = valid(l.Container)
		l.Workload.Name, l.Workload.Type = valid(l.Workload.Name), valid(l.Workload.Type)
		l.PeerNamespace, l.Peer = valid(l.PeerNamespace), valid(l.Peer)
		l.PeerWorkloadType, l.Service = valid(l.PeerWorkloadType), valid(l.Service)
		l.PeerPod = valid(only(o.PeerPod, l.PeerPod))
		l.PeerIP = only(o.PeerIP, l.PeerIP)
		l.PeerPort = only(o.PeerPort, l.PeerPort)
		l.Process = valid(only(o.Process, l.Process))
		return l
	}
}

// cleanExternal is cleanFlow for the external family.
func cleanExternal(o flows.Optional) func(flows.ExternalLabels) flows.ExternalLabels {
	return func(l flows.ExternalLabels) flows.ExternalLabels {
		l.Country, l.ASN, l.Organization = valid(l.Country), valid(l.ASN), valid(l.Organization)
		l.City = valid(only(o.City, l.City))
		l.Latitude = valid(only(o.Latitude, l.Latitude))
		l.Longitude = valid(only(o.Longitude, l.Longitude))
		l.IP = only(o.IP, l.IP)
		l.Container = valid(only(o.Container, l.Container))
		return l
	}
}

// only returns the value if it was asked for, else zero.
func only[T any](asked bool, value T) T {
	if asked {
		return value
	}
	var zero T
	return zero
}
