// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"net/netip"

	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
)

// decode sums a flow over the CPUs that saw it.
func decode(key *bpf.MeterFlowKey, slots []bpf.MeterFlowCounters, clock clock) flows.Record {
	record := flows.Record{Key: decodeKey(key)}
	var first, last uint32
	for i := range slots {
		slot := &slots[i]
		if slot.Packets == 0 { // this CPU never saw it: its stamps mean nothing
			continue
		}
		if record.Packets == 0 || int32(slot.First-first) < 0 {
			first = slot.First
		}
		if record.Packets == 0 || int32(slot.Last-last) > 0 {
			last = slot.Last
		}
		record.Bytes += slot.Bytes
		record.Packets += slot.Packets
	}
	record.First, record.Last = clock.time(first), clock.time(last)
	return record
}

// firstCounters is struct flow_counters of the first layout.
type firstCounters struct {
	Bytes, Packets uint64
	First, Last    uint32 // meaningless while Packets is 0
}

func decodeFirst(key *bpf.MeterFlowKey, slots []firstCounters, clock clock) flows.Record {
	counters := make([]bpf.MeterFlowCounters, len(slots))
	for i, s := range slots {
		counters[i] = bpf.MeterFlowCounters{Bytes: s.Bytes, Packets: s.Packets, First: s.First, Last: s.Last}
	}
	return decode(key, counters, clock)
}

func decodeKey(key *bpf.MeterFlowKey) flows.Key {
	k := flows.Key{
		Point:     flows.Point(key.Point),
		Direction: flows.Direction(key.Direction),
		EtherType: hostOrder(key.Ethertype),
		Protocol:  key.Protocol,
	}
	if key.Source == key.Destination && key.Source == [16]byte{} {
		return k // no IP header was read: the parser fills in both addresses or none
	}
	k.Source = netip.AddrFrom16(key.Source).Unmap()
	k.Destination = netip.AddrFrom16(key.Destination).Unmap()
	k.SourcePort, k.DestinationPort = hostOrder(key.SourcePort), hostOrder(key.DestinationPort)
	return k
}

func hostOrder(v uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], v)
	return binary.BigEndian.Uint16(b[:])
}
