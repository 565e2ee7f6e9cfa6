// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"github.com/podmeter/podmeter/flows"
	"github.com/prometheus/client_golang/prometheus"
)

// uplinkFamilies are the families of the uplinks. Their traffic is the pods' once
// more, and that of the node itself: they have neither the label namespace nor pod,
// so that no sum over pods has it too.
type uplinkFamilies struct {
	rows, interfaces, retired family[flows.UplinkLabels]
}

func newUplinkFamilies() uplinkFamilies {
	return uplinkFamilies{
		rows: newFamily("uplink", "that the node %s on its uplinks, by peer", bytesAndPackets,
			uplinkColumns(), cleanUplink),
		interfaces: newFamily("uplink_interface", "that the node %s on its uplinks", bytesAndPackets,
			interfaceColumns(), cleanUplink).always(),
		retired: newFamily("uplink_retired", "of idle uplink series that the node %s; never rate it", bytesAndPackets,
			interfaceColumns(), cleanUplink),
	}
}

func (u *uplinkFamilies) describe(ch chan<- *prometheus.Desc) {
	u.rows.describe(ch)
	u.interfaces.describe(ch)
	u.retired.describe(ch)
}

func (u *uplinkFamilies) collect(s *flows.UplinkSnapshot, ch chan<- prometheus.Metric) {
	u.rows.collect(s.Rows, ch)
	u.interfaces.collect(s.Interfaces, ch)
	u.retired.collect(s.Retired, ch)
}

func interfaceColumns() []column[flows.UplinkLabels] {
	return []column[flows.UplinkLabels]{
		{"interface", func(s *flows.Series[flows.UplinkLabels]) string { return s.Labels.Interface }},
	}
}

func uplinkColumns() []column[flows.UplinkLabels] {
	type row = flows.Series[flows.UplinkLabels]
	return append(interfaceColumns(), []column[flows.UplinkLabels]{
		{"peer_kind", func(s *row) string { return s.Labels.PeerKind.String() }},
		{"peer", func(s *row) string { return s.Labels.Peer }},
		{"locality", func(s *row) string { return s.Labels.Locality.String() }},
		{"country", func(s *row) string { return s.Labels.Country }},
		{"asn", func(s *row) string { return s.Labels.ASN }},
		{"organization", func(s *row) string { return s.Labels.Organization }},
	}...)
}

func cleanUplink(l flows.UplinkLabels) flows.UplinkLabels {
	l.Interface, l.Peer = valid(l.Interface), valid(l.Peer)
	l.Country, l.ASN, l.Organization = valid(l.Country), valid(l.ASN), valid(l.Organization)
	return l
}
