// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseOptional(t *testing.T) {
	for _, c := range []struct {
		name           string
		flow, external []string
		want           Optional
		err            string
	}{
		{name: "none"},
		{name: "all", flow: []string{"peer_pod", "peer_ip", "peer_port", "peer_ip"},
			external: []string{"city", "latitude", "longitude", "ip", "container"},
			want: Optional{PeerPod: true, PeerIP: true, PeerPort: true,
				City: true, Latitude: true, Longitude: true, IP: true, Container: true}},
		{name: "one of each", flow: []string{"peer_port"}, external: []string{"ip"},
			want: Optional{PeerPort: true, IP: true}},
		{name: "unknown", flow: []string{"peer_ip", "peerip"},
			err: `unknown flow label "peerip", known are peer_ip, peer_pod, peer_port`},
		{name: "empty", external: []string{""},
			err: `unknown external label "", known are city, container, ip, latitude, longitude`},
		{name: "always there", flow: []string{"container"},
			err: `flow label "container" is always written, leave it out`},
		{name: "every fault", flow: []string{"ip", "pod"}, external: []string{"country", "peer_ip"},
			err: `unknown flow label "ip", known are peer_ip, peer_pod, peer_port
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
