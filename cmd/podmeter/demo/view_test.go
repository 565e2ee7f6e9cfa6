// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"slices"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
)

func TestView(t *testing.T) {
	const web = `namespace="shop",pod="web"`
	flow := func(labels string) string { return `podmeter_flow_transmit_bytes_total{` + web + `,` + labels + `}` }
	place := func(labels string) string { return `podmeter_external_receive_bytes_total{` + web + `,` + labels + `}` }
	first := map[string]float64{
		`podmeter_pod_transmit_bytes_total{` + web + `}`:                           1000,
		`podmeter_pod_receive_bytes_total{` + web + `}`:                            500,
		`podmeter_pod_transmit_bytes_total{namespace="",pod="veth0"}`:              1,
		flow(`peer_kind="pod",peer_namespace="shop",peer="api",peer_ip="fd00::1"`): 100,
		flow(`peer_kind="pod",peer_namespace="shop",peer="api",peer_ip="fd00::2"`): 150,
		flow(`peer_kind="node",peer_namespace="",peer="demo-node"`):                200,
		flow(`peer_kind="external",peer_namespace="",peer=""`):                     900,
		flow(`peer_kind="unattributed",peer_namespace="",peer=""`):                 20,
		flow(`peer_kind="multicast",peer_namespace="",peer=""`):                    10,
		place(`country="CH",city="Zürich"`):                                        30,
		place(`country="BR",city=""`):                                              40,
		place(`country="",city=""`):                                                20,
		place(`country="IS",city="Reykjavík"`):                                     0,
	}
	v := newView(must(verify.Parse(expose(first)))(t), 2*time.Second, nil)
	if len(v.pods) != 2 || v.pods[0].name.String() != "shop/web" || v.pods[1].name.String() != "veth0" {
		t.Fatalf("got pods %v, want shop/web and veth0", v.pods)
	}
	got := v.pods[0]
	if want := [flows.Directions]uint64{1000, 500}; got.moved != want || got.rate != 0 {
		t.Errorf("got %v bytes at %v bit/s, want %v and 0", got.moved, got.rate, want)
	}
	if want := []string{"shop/api", "node demo-node", "unattributed"}; !slices.Equal(got.peers, want) {
		t.Errorf("got peers %q, want %q", got.peers, want)
	}
	if want := []string{"BR", "Zürich, CH", "unknown place"}; !slices.Equal(got.places, want) {
		t.Errorf("got places %q, want %q", got.places, want)
	}
	first[`podmeter_pod_receive_bytes_total{`+web+`}`] += 1000
	v = newView(must(verify.Parse(expose(first)))(t), 4*time.Second, v)
	if got, want := v.pods[0].rate, 4000.0; got != want {
		t.Errorf("got %v bit/s, want %v: 1000 bytes in 2 s", got, want)
	}
	moved, rate := v.total()
	if want := [flows.Directions]uint64{1001, 1500}; moved != want || rate != 4000 {
		t.Errorf("got %v bytes at %v bit/s in all, want %v and 4000", moved, rate, want)
	}
}
