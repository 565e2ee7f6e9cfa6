// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
)

// account is what an epoch holds of one point and direction.
type account struct {
	total  bpf.MeterTotalCounters // grown since the set's last drain
	placed flows.Counters         // sum of the drained flows
	read   uint64                 // entries of maps and slots of fronts
}

// balance checks the identity of the exact drain: total = flows + unplaced. Where entries
// may be missing, as some were evicted, cannot be read, or are of epochs that are not in the
// total, the identity is to hold if as many entries were read as were inserted. It returns
// the residue of what is missing, or else by how many bytes the identity fails, which only a
// bug explains.
func (a account) balance(lossy bool) (residue flows.Counters, failed uint64) {
	unplaced := flows.Counters{Bytes: a.total.UnplacedBytes, Packets: a.total.UnplacedPackets}
	explained := a.placed
	explained.Add(unplaced)
	total := countersOf(a.total)
	if explained.Bytes > total.Bytes || explained.Packets > total.Packets {
		return flows.Counters{}, distance(explained, total)
	}
	rest := total.Sub(explained)
	switch {
	case a.read == a.total.Inserted:
		return rest, distance(total, explained)
	case a.read > a.total.Inserted, !lossy: // more flows than were ever created, or fewer
		return rest, max(rest.Bytes, 1)
	default:
		return rest, 0
	}
}

// distance is how far apart a and b are in bytes, and at least 1 if only their
// packets differ: no difference may look like none.
func distance(a, b flows.Counters) uint64 {
	switch {
	case a == b:
		return 0
	case a.Bytes > b.Bytes:
		return a.Bytes - b.Bytes
	default:
		return max(1, b.Bytes-a.Bytes)
	}
}

func subTotals(now, then bpf.MeterTotalCounters) bpf.MeterTotalCounters {
	now.Bytes -= then.Bytes
	now.Packets -= then.Packets
	now.Inserted -= then.Inserted
	now.UnplacedBytes -= then.UnplacedBytes
	now.UnplacedPackets -= then.UnplacedPackets
	return now
}
