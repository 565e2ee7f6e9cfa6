// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
)

// From the network header on a packet is what it is from the Ethernet header on.
func TestL3ReadsAsFromTheEthernetHeader(t *testing.T) {
	t.Parallel()
	objects := loadMeter(t, loopback)
	for _, c := range append(ipv4Cases(), ipv6Cases()...) {
		if c.outcome == MeterOutcomeOUTCOME_TRUNCATED_NETWORK {
			continue // it is tagged, which no device without an Ethernet header has
		}
		for direction, program := range []*ebpf.Program{objects.PodmeterL3Transmit, objects.PodmeterL3Receive} {
			t.Run(c.name+"/"+[]string{"transmit", "receive"}[direction], func(t *testing.T) {
				defer forget(t, objects)
				c.key.Direction = uint8(direction)
				want := []run{{outcome: c.outcome, key: c.key, flow: MeterFlowCounters{Bytes: uint64(len(c.packet)), Packets: 1}}}
				if diff := cmp.Diff(want, meter(t, objects, program, c.packet), cmp.AllowUnexported(run{})); diff != "" {
					t.Errorf("flows (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// What is no IP is what the kernel calls it.
func TestL3WithoutIP(t *testing.T) {
	t.Parallel()
	objects := loadMeter(t, loopback)
	for _, c := range linkCases() {
		if c.outcome != MeterOutcomeOUTCOME_NOT_IP || c.name == "tagged arp" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			defer forget(t, objects)
			want := []run{{outcome: c.outcome, key: c.key, flow: MeterFlowCounters{Bytes: uint64(len(c.packet)), Packets: 1}}}
			if diff := cmp.Diff(want, meter(t, objects, objects.PodmeterL3Transmit, c.packet), cmp.AllowUnexported(run{})); diff != "" {
				t.Errorf("flows (-want +got):\n%s", diff)
			}
		})
	}
}
