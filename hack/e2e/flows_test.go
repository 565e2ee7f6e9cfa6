// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	dto "github.com/prometheus/client_model/go"
)

// row is what a flow of a pod is called.
type row struct{ peerKind, peerNamespace, peer, peerType, service, locality, protocol string }

// flows is what of a pod is on each row. What neighbours ask at any time is left
// out: ARP, ICMPv6, which no test sends, and the IGMP of a bridge's node.
type flows map[row]counters

func (s series) flows(namespace, pod string) flows {
	found := make(flows)
	for _, what := range []string{"transmit_bytes", "transmit_packets", "receive_bytes", "receive_packets"} {
		for _, m := range s["podmeter_flow_"+what+"_total"].GetMetric() {
			if !has(m, []string{"namespace", namespace, "pod", pod}) {
				continue
			}
			label := labels(m)
			r := row{
				label["peer_kind"], label["peer_namespace"], label["peer"], label["peer_workload_type"],
				label["service"], label["locality"], label["protocol"],
			}
			if r.peerKind == "link" || r.protocol == "icmpv6" || r.peerKind == "node" && r.protocol == "other" {
				continue
			}
			c := found[r]
			*c.field(what) += m.GetCounter().GetValue()
			found[r] = c
		}
	}
	return found
}

func labels(m *dto.Metric) map[string]string {
	all := make(map[string]string)
	for _, pair := range m.GetLabel() {
		all[pair.GetName()] = pair.GetValue()
	}
	return all
}

func (c *counters) field(what string) *float64 {
	switch what {
	case "transmit_bytes":
		return &c.transmitBytes
	case "transmit_packets":
		return &c.transmitPackets
	case "receive_bytes":
		return &c.receiveBytes
	}
	return &c.receivePackets
}

// plus adds counters field by field, sign times.
func (c counters) plus(o counters, sign float64) counters {
	return counters{
		c.transmitBytes + sign*o.transmitBytes, c.transmitPackets + sign*o.transmitPackets,
		c.receiveBytes + sign*o.receiveBytes, c.receivePackets + sign*o.receivePackets,
	}
}

// mirrored is what the other end counts.
func (c counters) mirrored() counters {
	return counters{c.receiveBytes, c.receivePackets, c.transmitBytes, c.transmitPackets}
}

// since returns by what the rows grew.
func (f flows) since(before flows) flows {
	grown := make(flows)
	for r, c := range f {
		if d := c.plus(before[r], -1); d != (counters{}) {
			grown[r] = d
		}
	}
	return grown
}

// awaitFlows waits until a pod's rows have grown by exactly these, and no others
// have. A counter never goes down, so what is too much stays. Of a new pod, which had
// no rows before, what neighbours asked before the attachment is unattributed.
func (c *cluster) awaitFlows(t *testing.T, namespace, pod string, before, want flows) {
	t.Helper()
	ktest.AwaitWithin(t, patience, "the flows of "+pod, func() string {
		got := c.podmeter(t).flows(namespace, pod).since(before)
		if before == nil {
			maps.DeleteFunc(got, func(r row, _ counters) bool { return r.peerKind == "unattributed" })
		}
		if maps.Equal(got, want) {
			return ""
		}
		return fmt.Sprintf("got %+v, want %+v", got, want)
	})
}
