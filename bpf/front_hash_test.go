// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"unsafe"

	"github.com/podmeter/podmeter/internal/ktest"
)

// frontBucketOf is what find_bucket of front.h computes for one CPU.
func frontBucketOf(key *MeterFlowKey, buckets uint32) uint32 {
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(key)), unsafe.Sizeof(*key))
	factor := func(i uint64) uint64 { return 0x9e3779b97f4a7c15*(2*i+1) ^ 0xc2b2ae3d27d4eb4e }
	var hash uint64
	for i := range uint64(5) {
		word := binary.NativeEndian.Uint64(bytes[8*i:])
		hash += (word ^ word>>32) * factor(i)
	}
	hash = (hash ^ hash>>32) * factor(5)
	return uint32(hash >> 32 * uint64(buckets) >> 32)
}

// The kernel finds a flow's bucket as the tests below do.
func TestBucketOfAFlow(t *testing.T) {
	t.Parallel()
	objects := loadMeter(t, loopback)
	for port := range uint16(20) {
		packet := ktest.Packet(ktest.Ethernet(0x0800), ktest.IPv4(src4, dst4, udp), ktest.Ports(40000+port, 53))
		meter(t, objects, objects.PodmeterTransmit, packet)
	}
	slots := 0
	taken(t, objects.Front0, 0, func(i int, slot *MeterFrontSlot) {
		slots++
		bucket := uint32(i/len(MeterFrontBucket{}.Slots)) % testBuckets
		if want := frontBucketOf(&slot.Key, testBuckets); bucket != want {
			t.Errorf("%+v: got bucket %d, want %d", slot.Key, bucket, want)
		}
	})
	if slots == 0 {
		t.Error("got no flow in the front")
	}
}

// Flows that differ little are spread over the buckets: few of them find both slots of theirs taken, no
// more than by chance.
func TestBucketsAreSpread(t *testing.T) {
	t.Parallel()
	const buckets = 1024
	for name, vary := range map[string]func(key *MeterFlowKey, n uint16){
		"last byte of an IPv4 address": func(key *MeterFlowKey, n uint16) { key.Destination[15] = byte(n) },
		"last two bytes of an IPv4 address": func(key *MeterFlowKey, n uint16) {
			binary.BigEndian.PutUint16(key.Destination[14:], n)
		},
		"source address":           func(key *MeterFlowKey, n uint16) { binary.BigEndian.PutUint16(key.Source[14:], n) },
		"prefix of an IPv6 source": func(key *MeterFlowKey, n uint16) { binary.BigEndian.PutUint16(key.Source[6:], n) },
		"source port":              func(key *MeterFlowKey, n uint16) { key.SourcePort = swap16(n) },
		"even source port":         func(key *MeterFlowKey, n uint16) { key.SourcePort = swap16(2 * n) },
		"destination port":         func(key *MeterFlowKey, n uint16) { key.DestinationPort = swap16(n) },
		"both ports":               func(key *MeterFlowKey, n uint16) { key.SourcePort, key.DestinationPort = swap16(n), swap16(n) },
		"point":                    func(key *MeterFlowKey, n uint16) { key.Point = uint32(n) },
		"last bytes of both addresses": func(key *MeterFlowKey, n uint16) {
			key.Source[15], key.Destination[15] = byte(n), byte(n>>8)
		},
		"few of both addresses": func(key *MeterFlowKey, n uint16) {
			key.Source[15], key.Destination[15] = byte(n%32), byte(n/32)
		},
		"prefixes of both addresses": func(key *MeterFlowKey, n uint16) {
			key.Source[7], key.Destination[7] = byte(n%128), byte(n/128)
		},
		"pods and their source ports": func(key *MeterFlowKey, n uint16) {
			key.Point, key.Source[15], key.SourcePort = uint32(7+n%128), byte(2+n%128), swap16(32768+n/128*2)
		},
	} {
		for _, flows := range []int{256, 1024, 65536} {
			t.Run(fmt.Sprint(name, " ", flows), func(t *testing.T) {
				load, distinct := make([]int, buckets), make(map[MeterFlowKey]bool)
				for n := range flows {
					key := key4(tcp, 40000, 443)
					vary(&key, uint16(n))
					if !distinct[key] {
						distinct[key] = true
						load[frontBucketOf(&key, buckets)]++
					}
				}
				beyond := 0
				for _, n := range load {
					beyond += max(0, n-2)
				}
				mean := float64(len(distinct)) / buckets
				// What a Poisson distribution has there, and room.
				chance := buckets * (mean - 2 + math.Exp(-mean)*(2+mean))
				if limit := 1.25*chance + 20; float64(beyond) > limit {
					t.Errorf("%d of %d flows are beyond the slots of their buckets, want at most %.0f", beyond, len(distinct), limit)
				}
			})
		}
	}
}
