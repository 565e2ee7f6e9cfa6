// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseOptional(t *testing.T) {
	for _, c := range []struct {
		name           string
		flow, external []string
		want           Optional
		err            string
	}{
		{name: "none"},
		{name: "all", flow: []string{"peer_pod", "peer_ip", "peer_port", "peer_ip", "process"},
			external: []string{"city", "latitude", "longitude", "ip", "container"},
			want: Optional{PeerPod: true, PeerIP: true, PeerPort: true, Process: true,
				City: true, Latitude: true, Longitude: true, IP: true, Container: true}},
		{name: "one of each", flow: []string{"peer_port"}, external: []string{"ip"},
			want: Optional{PeerPort: true, IP: true}},
		{name: "unknown", flow: []string{"peer_ip", "peerip"},
			err: `unknown flow label "peerip", known are peer_ip, peer_pod, peer_port, process`},
		{name: "empty", external: []string{""},
			err: `unknown external label "", known are city, container, ip, latitude, longitude`},
		{name: "always there", flow: []string{"container"},
			err: `flow label "container" is always written, leave it out`},
		{name: "every fault", flow: []string{"ip", "pod"}, external: []string{"country", "peer_ip"},
			err: `unknown flow label "ip", known are peer_ip, peer_pod, peer_port, process
flow label "pod" is always written, leave it out
external label "country" is always written, leave it out
unknown external label "peer_ip", known are city, container, ip, latitude, longitude`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseOptional(c.flow, c.external)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if diff := cmp.Diff(c.err, text); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// ambiguous is a directory of addresses that changed hands.
type ambiguous struct{ *directory }

func (ambiguous) Owner(Query) *Owner {
	return &Owner{Kind: PeerUnattributed, Node: "a", Zone: "z1", Name: "x"}
}

// Bytes whose owner is ambiguous make one row for a pod and protocol: those
// stand outside the limits and are never retired.
func TestUnattributedRowsAreFew(t *testing.T) {
	publisher, table, d := world(1, roomy, Optional{PeerPod: true, PeerIP: true, PeerPort: true})
	publisher.attribution.directory = ambiguous{d}
	pod := *d.pods[podAddress(1)]
	pod.Container, pod.Workload = "app", Workload{Type: "deployment", Name: "web"}
	d.pods[podAddress(1)] = &pod
	e := epochOf(1, []Interface{iface(1)})
	for i := range 2000 {
		e.Records = append(e.Records, Record{Counters: Counters{10, 1}, First: e.Start, Last: e.End, Key: Key{
			Point: 1, EtherType: EtherTypeIPv4, Protocol: []uint8{ProtocolTCP, ProtocolUDP}[i%2], Source: podAddress(1),
			Destination: netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), DestinationPort: uint16(i)}})
	}
	e.Totals = totalsOf(e.Records)
	publish(t, publisher, epochOf(0, []Interface{iface(1)}), e)
	got := map[FlowLabels]uint64{}
	for _, s := range table.Snapshot().Flows {
		got[s.Labels] = s.Counters[Transmit].Bytes
	}
	labels := FlowLabels{Container: "app", Workload: pod.Workload, PeerKind: PeerUnattributed, Protocol: ProtoTCP}
	want := map[FlowLabels]uint64{labels: 10_000}
	labels.Protocol = ProtoUDP
	want[labels] = 10_000
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(FlowLabels{})); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}
